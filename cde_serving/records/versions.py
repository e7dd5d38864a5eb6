"""Which code and which files decided: the digests that every record carries."""

from pathlib import Path

import cde_domain
from cde_domain.digests import file_digest, json_digest
from cde_domain.release import Bundle
from cde_serving.records.record import Versions

# What turns a request into features, and features into a decision.
_DECIDING = ("application.py", "decisions", "features", "model", "portfolio", "release.py")


def platform_code() -> str:
    """The digest of the platform's own code that decides, as it is on disk."""
    root = Path(str(cde_domain.__file__)).parent
    files = [
        path for name in _DECIDING for path in ([root / name] if name.endswith(".py") else root.glob(f"{name}/*.py"))
    ]
    return json_digest({path.relative_to(root).as_posix(): file_digest(path) for path in sorted(files)})


class VersionsOf:
    """The versions that a bundle decides with in this process; the platform's code is looked at once."""

    def __init__(self) -> None:
        self._platform = platform_code()
        self._known: dict[str, Versions] = {}  # champion and challenger take turns

    def __call__(self, bundle: Bundle) -> Versions:
        """The versions of a bundle."""
        known = self._known.get(bundle.digest)
        if known is None:
            known = self._known[bundle.digest] = self._versions(bundle)
        return known

    def _versions(self, bundle: Bundle) -> Versions:
        files: dict[str, str] = bundle.manifest["files"]

        def below(folder: str) -> dict[str, str]:
            return {name.removeprefix(folder): digest for name, digest in files.items() if name.startswith(folder)}

        return Versions(
            bundle=bundle.digest,
            model=json_digest(below("model/")),
            policy=files["policy.yaml"],
            code=json_digest({"platform": self._platform, "portfolio": below("portfolio/")}),
            policy_version=bundle.engine.policy.version,
        )

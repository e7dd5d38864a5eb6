"""Which code and which files decided: the digests that every record carries."""

from pathlib import Path

import cde_domain
from cde_domain.digests import file_digest, json_digest
from cde_domain.release import Bundle
from cde_serving.records.record import Versions

# What turns a request into features, and features into a decision.
_ROOT = Path(str(cde_domain.__file__)).parent
_DECIDING = ("application.py", "decisions", "features", "model", "portfolio", "release.py")


def deciding_files() -> list[Path]:
    """The platform's own files that decide; folders inside these packages watch decisions, and take no part in them."""
    return sorted(
        path for name in _DECIDING for path in ([_ROOT / name] if name.endswith(".py") else _ROOT.glob(f"{name}/*.py"))
    )


def platform_code() -> str:
    """The digest of the platform's own code that decides, as it is on disk."""
    return json_digest({path.relative_to(_ROOT).as_posix(): file_digest(path) for path in deciding_files()})


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

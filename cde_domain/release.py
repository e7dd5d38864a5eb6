"""A release: the bundle of files that the service needs for one model, with the digest of every one.

A bundle is a folder named by its digest: `manifest.json`, `model/` (arrays and JSON), `policy.yaml` and `portfolio/`
(the portfolio's own code). It holds no pickle, and nothing in it is read before its digest was verified.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.policy import Policy
from cde_domain.digests import file_digest, folder_digests, json_digest, write_json
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import Portfolio, load_portfolio_copy, portfolio_code

MANIFEST = "manifest.json"
FORMAT = 1


class BundleError(ValueError):
    """A bundle that is not what its manifest, or the ledger, says."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, loaded."""

    digest: str
    folder: Path
    manifest: dict[str, Any]
    engine: DecisionEngine

    @property
    def portfolio(self) -> Portfolio:
        """The portfolio as it was when the model was made."""
        return self.engine.portfolio


def write_bundle(bundles: Path, reference: str, portfolio: Portfolio, model_folder: Path) -> Path:
    """
    Write the bundle of a model into `bundles/<digest>` and return that folder.

    The same content gives the same digest; a bundle that is there already is left as it is. It appears whole or not at
    all.
    """
    bundles.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=bundles))
    try:
        for name, path in _content(reference, portfolio, model_folder).items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        manifest = _manifest(reference, portfolio, folder_digests(staging))
        digest = json_digest(manifest)
        write_json(staging / MANIFEST, manifest)
        target = bundles / digest
        if not target.exists():
            staging.rename(target)
        return target
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def bundle_digest(reference: str, portfolio: Portfolio, model_folder: Path) -> str:
    """The digest of the bundle that `write_bundle` would write now."""
    content = _content(reference, portfolio, model_folder)
    return json_digest(_manifest(reference, portfolio, {name: file_digest(path) for name, path in content.items()}))


def _content(reference: str, portfolio: Portfolio, model_folder: Path) -> dict[str, Path]:
    """Every file of a bundle but its manifest, by its name there."""
    model = sorted(path for path in model_folder.rglob("*") if path.is_file())
    return {
        **{f"model/{path.relative_to(model_folder).as_posix()}": path for path in model},
        "policy.yaml": portfolio.policy_file,
        **{f"portfolio/{name}": path for name, path in portfolio_code(reference).files.items()},
    }


def _manifest(reference: str, portfolio: Portfolio, files: dict[str, str]) -> dict[str, Any]:
    code = portfolio_code(reference)
    named = {"name": portfolio.name, "module": code.module, "attribute": code.attribute}
    return {"format": FORMAT, "portfolio": named, "files": files}


def verify_bundle(folder: Path, digest: str) -> dict[str, Any]:
    """
    Verify every file of a bundle against its manifest, and the manifest against its digest; return the manifest.

    Raises:
        BundleError: a file is missing, added or changed, or the manifest is not the one named by `digest`.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        actual = json_digest(manifest)
        expected = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"bundle {digest[:12]}: its manifest cannot be read: {error}") from error
    if actual != digest:
        raise BundleError(f"bundle {digest[:12]}: the manifest has the digest {actual[:12]}")
    if manifest["format"] != FORMAT:
        raise BundleError(f"bundle {digest[:12]}: its format is {manifest['format']}, this version reads {FORMAT}")
    present = folder_digests(folder)
    del present[MANIFEST]
    for name in sorted(present.keys() ^ expected.keys()):
        raise BundleError(f"bundle {digest[:12]}: {name} is {'not in the manifest' if name in present else 'missing'}")
    for name, sha256 in expected.items():
        if present[name] != sha256:
            raise BundleError(f"bundle {digest[:12]}: {name} is not the file that was released")
    return manifest


def load_bundle(folder: Path, digest: str) -> Bundle:
    """
    Verify and load a bundle.

    Raises:
        BundleError: as `verify_bundle`, or the content contradicts itself.
    """
    manifest = verify_bundle(folder, digest)
    named = manifest["portfolio"]
    try:
        portfolio = load_portfolio_copy(
            folder / "portfolio", named["module"], named["attribute"], package=f"cde_bundle_{digest[:16]}"
        )
        policy = Policy.read(folder / "policy.yaml")
        engine = DecisionEngine(portfolio, ScoringModel.load(folder / "model"), policy)
    except Exception as error:  # the bundle runs its portfolio's code, which can fail in any way
        raise BundleError(f"bundle {digest[:12]}: {type(error).__name__}: {error}") from error
    return Bundle(digest, folder, manifest, engine)

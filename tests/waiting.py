"""A lender with a champion, and with a challenger that passed everything and waits for its promotion."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cde_checks.gate import Case, examine
from cde_domain.digests import folder_digests, json_digest, write_json
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.approvals import Approval, write_approval
from cde_serving.evidence import Pack, verify_pack
from cde_serving.signing import SigningKey
from tests.lender import Lender

NAME = "german_credit"
Cde = Callable[..., tuple[int, str]]


def with_other_policy(bundles: Path) -> Path:
    """The champion's bundle under a stricter policy: another bundle."""
    (champion,) = bundles.iterdir()
    staging = Path(shutil.copytree(champion, bundles / "staging"))
    policy = staging / "policy.yaml"
    policy.write_text(policy.read_text(encoding="utf-8") + "# stricter\n", encoding="utf-8")
    manifest = json.loads((staging / "manifest.json").read_text(encoding="utf-8"))
    (staging / "manifest.json").unlink()
    manifest["files"] = folder_digests(staging)
    write_json(staging / "manifest.json", manifest)
    return staging.rename(bundles / json_digest(manifest))


def releases(lender: Lender) -> ReleasesResource:
    """The lender's keys and folders."""
    return ReleasesResource.of(lender.settings, NAME)


def promote(lender: Lender, bundle: Path) -> None:
    """Make a bundle champion with the platform's key."""
    entries = lender.ledger.entries()
    lender.ledger.append(
        action="promote",
        portfolio=NAME,
        bundle=bundle.name,
        expected_sequence=entries[-1].sequence,
        evidence=entries[-1].evidence,
        details=entries[-1].details,
        key=releases(lender).signer(),
        by="test",
    )


def pack_of(lender: Lender) -> Path:
    """The folder of the challenger's evidence pack."""
    report = json.loads((lender.settings.home / "artefacts" / NAME / "evidence_pack.json").read_text())
    return lender.store.evidence / report["digest"]


def verified(lender: Lender) -> Pack:
    """The challenger's evidence pack."""
    return verify_pack(pack_of(lender), releases(lender).trusted())


def examined(lender: Lender) -> Case:
    """What the gate says now."""
    portfolio = PortfolioResource(reference=NAME, state=str(lender.settings.home))
    return examine(lender.instance, portfolio, releases(lender))


def assert_not_promoted(lender: Lender, *told: str) -> None:
    """Promoting fails with these words, `cde why-not` says the same, and the ledger does not change by a byte."""
    before = lender.ledger.path.read_bytes() if lender.ledger.path.exists() else None
    run = lender.run("champion_model")
    assert not run.success
    said = run.failures["champion_model"]
    asked = "\n".join(map(str, examined(lender).refusals))
    for words in told:
        assert words in said
        assert words in asked
    assert before == (lender.ledger.path.read_bytes() if lender.ledger.path.exists() else None)


def assert_still_served(lender: Lender, champion: str) -> None:
    """A service that starts now loads the old champion."""
    current = lender.store.current()
    assert current is not None
    assert champion == current.digest


def edit(path: Path) -> None:
    """Change one digit."""
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def approve(lender: Lender, key: SigningKey, *, name: str = "jane", days_ago: int = 0) -> Approval:
    """Approve the challenger's evidence for thirty days."""
    at = datetime.now(UTC) - timedelta(days=days_ago)
    approval = Approval.of(verified(lender), name=name, key=key, at=at, days=30)
    write_approval(lender.store.approvals, approval)
    return approval

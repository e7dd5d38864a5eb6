"""An approval counts only if an approver gave it, for this evidence, and lately."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cde_serving.approvals import Approval, write_approval
from cde_serving.evidence import verify_pack
from cde_serving.signing import SigningKey
from tests.lender import Lender
from tests.waiting import approve, assert_not_promoted, assert_still_served, pack_of, releases, truncate


def test_an_approved_challenger_is_promoted_and_the_ledger_names_the_approver(
    lender: Lender, approver: SigningKey
) -> None:
    approve(lender, approver)
    assert lender.run("champion_model").success
    assert lender.ledger.entries()[-1].details["approved_by"] == "jane"


def test_without_an_approval_nothing_is_promoted_and_the_command_is_told(
    lender: Lender, champion: str, approver: SigningKey
) -> None:
    assert_not_promoted(
        lender,
        "approval: nobody approved this evidence yet",
        f"cde approve german_credit --evidence {pack_of(lender).name}",
    )
    assert_still_served(lender, champion)


def approve_other_evidence(lender: Lender, key: SigningKey) -> None:
    """Approve the older pack, and file it under the newer one."""
    older = verify_pack(lender.store.evidence / lender.ledger.entries()[0].evidence, releases(lender).trusted())
    approval = Approval.of(older, name="jane", key=key, at=datetime.now(UTC), days=30)
    write_approval(lender.store.approvals, approval).rename(lender.store.approvals / f"{pack_of(lender).name}.json")


def prolong(lender: Lender, key: SigningKey) -> None:
    """Write a later end into an expired approval."""
    expired = approve(lender, key, days_ago=40)
    write_approval(
        lender.store.approvals, expired.model_copy(update={"valid_until": datetime.now(UTC) + timedelta(days=9)})
    )


def spaces(path: Path) -> None:
    """Append what changes no value."""
    path.write_bytes(path.read_bytes() + b" ")


def respell(lender: Lender, key: SigningKey) -> None:
    """Write the same moment in another way."""
    path = write_approval(lender.store.approvals, approve(lender, key))
    path.write_text(path.read_text().replace('Z"', '+00:00"'))


UNAPPROVED: list[tuple[str, Callable[[Lender, SigningKey], object], str]] = [
    ("expired", lambda lender, key: approve(lender, key, days_ago=31), "it expired on"),
    ("not yet", lambda lender, key: approve(lender, key, days_ago=-2), "in the future"),
    ("prolonged", prolong, "it bears a signature that does not match"),
    ("other evidence", approve_other_evidence, "it approves other evidence"),
    (
        "the trainer's key",
        lambda lender, key: approve(lender, releases(lender).signer(), name="platform"),
        "it is signed with the platform's own key, and whoever trains cannot approve",
    ),
    ("a stranger's key", lambda lender, key: approve(lender, SigningKey.generate()), "which is not trusted"),
    (
        "another's name",
        lambda lender, key: approve(lender, key, name="bob"),
        "in the name of bob, but the key is jane's",
    ),
    ("spaces", lambda lender, key: spaces(write_approval(lender.store.approvals, approve(lender, key))), "other bytes"),
    ("a date in other words", respell, "its file holds other bytes than were signed"),
    (
        "truncated",
        lambda lender, key: truncate(write_approval(lender.store.approvals, approve(lender, key))),
        "its file is damaged",
    ),
]


@pytest.mark.parametrize(("cheat", "told"), [case[1:] for case in UNAPPROVED], ids=[case[0] for case in UNAPPROVED])
def test_an_approval_that_does_not_count_promotes_nothing(
    lender: Lender, champion: str, approver: SigningKey, cheat: Callable[[Lender, SigningKey], object], told: str
) -> None:
    cheat(lender, approver)
    assert_not_promoted(lender, "approval: ", told)
    assert_still_served(lender, champion)

"""An experiment is no way around the gate: a challenger needs all that a promotion needs before anybody is decided."""

import re
from pathlib import Path

from cde_serving.plan import PlanFollower
from tests.lender import Lender
from tests.waiting import NAME, Cde, assert_still_served, edit, examined, pack_of


def experiment(cde: Cde, *words: object) -> tuple[int, str]:
    return cde("experiment", *words, "--portfolio", NAME)


def test_the_latest_challenger_takes_part_once_the_gate_is_open(lender: Lender, cde: Cde, champion: str) -> None:
    """Its bundle is written beside the champion's, which goes on; the weight changes, and the end is told."""
    assert (1, "No experiment runs: the champion decides alone.\n") == experiment(cde, "show")

    status, said = experiment(cde, "start", "autumn", "--challenger", "latest", "--weight", 0.05)

    assert 0 == status, said
    assert "decides for 5.0% of customers" in said
    assert re.search(
        r"approved \(hold-out\): [\d,]+ customers are needed to find a change of 10.0% with power 80%; [\d,]+ to", said
    )
    follower = PlanFollower(lender.store)
    plan = follower.plan
    follower.close()
    assert plan.challenger is not None
    assert (examined(lender).bundle, 0.05) == (plan.challenger.digest, plan.weight)
    assert_still_served(lender, champion)
    assert 0 == experiment(cde, "weight", 0.25)[0]
    assert "25.0%" in experiment(cde, "show")[1]
    assert 2 == experiment(cde, "weight", 1.5)[0]
    assert 0 == experiment(cde, "stop", "--reason", "no difference")[0]
    assert 1 == experiment(cde, "weight", 0.5)[0]


def test_an_earlier_champion_takes_part_on_the_evidence_of_its_promotion(lender: Lender, cde: Cde) -> None:
    """It passed the gate once; the champion itself does not compete with itself."""
    earlier, *_, current = (entry.bundle for entry in lender.ledger.entries())

    refused = experiment(cde, "start", "autumn", "--challenger", current[:12])
    status, said = experiment(cde, "start", "autumn", "--challenger", earlier[:12], "--weight", 0.5)

    assert 1 == refused[0]
    assert "is the champion" in refused[1]
    assert 0 == status, said


def refused_and_nothing_signed(lender: Lender, cde: Cde, *words: str) -> str:
    status, said = experiment(cde, "start", "autumn", "--weight", 0.05, *words)
    assert 1 == status, said
    assert () == lender.store.experiments.entries()
    return said


def test_a_challenger_that_the_gate_refuses_is_no_challenger(lender: Lender, cde: Cde) -> None:
    """A changed report stops it, as it stops a promotion."""
    report = lender.settings.home / "artefacts" / "german_credit" / "evaluation.json"
    edit(report)

    said = refused_and_nothing_signed(lender, cde, "--challenger", "latest")

    assert "the latest challenger may not take part" in said
    assert "evaluation.json is not the file that it was materialised as" in said


def test_a_challenger_without_its_approval_is_a_shadow_at_most(lender: Lender, cde: Cde, approver: object) -> None:
    """Where a promotion needs a person, so does deciding for one customer in twenty."""
    said = refused_and_nothing_signed(lender, cde, "--challenger", "latest")
    assert "cde approve" in said

    status, said = experiment(cde, "start", "autumn", "--shadow", "latest")

    assert 0 == status, said
    assert "decides without being answered" in said


def test_evidence_that_was_changed_proves_nothing(lender: Lender, cde: Cde) -> None:
    """Neither of the latest challenger nor of an earlier champion, and not for a shadow."""
    edit(pack_of(lender) / "reports" / "evaluation.json")
    first = lender.ledger.entries()[0]
    edit(lender.store.evidence / first.evidence / "reports" / "evaluation.json")

    refused_and_nothing_signed(lender, cde, "--challenger", "latest")
    refused_and_nothing_signed(lender, cde, "--shadow", "latest")
    assert "evaluation.json was changed" in refused_and_nothing_signed(lender, cde, "--challenger", first.bundle)


def test_a_bundle_that_was_only_put_there_is_no_participant(lender: Lender, cde: Cde) -> None:
    """A folder in `bundles/` is no proof."""
    bundle = Path(lender.store.bundles / ("a" * 64))
    bundle.mkdir()

    for role in ("--challenger", "--shadow"):
        said = refused_and_nothing_signed(lender, cde, role, "a" * 64)
        assert "names neither a bundle that was promoted nor the latest challenger" in said


def test_an_experiment_without_anybody_is_none(lender: Lender, cde: Cde) -> None:
    """Nor one with a name that is no word."""
    assert 1 == experiment(cde, "start", "autumn")[0]
    assert 1 == experiment(cde, "start", "Autumn of 2026", "--shadow", "latest")[0]
    assert () == lender.store.experiments.entries()

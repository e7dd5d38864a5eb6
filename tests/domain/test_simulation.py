"""Policy simulation: recorded decisions taken again under another policy or model, and what that would have meant."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.decisions.engine import DecisionEngine, Routing
from cde_domain.decisions.policy import Policy, PolicyError
from cde_domain.decisions.review import failed, reviewed
from cde_domain.decisions.simulation.figures import Applications, fairness, figures, moves
from cde_domain.decisions.simulation.replaying import BUNDLE_MISSING, NOT_REPRODUCED, SimulationError, simulate
from cde_domain.portfolio import Economics, ProtectedAttribute
from tests.recorded import BUNDLE, applicants, recorded
from tests.support import TinyLoans

ECONOMICS = Economics(margin=0.1, loss_given_default=0.5)


def under(engine: DecisionEngine, policy: Policy) -> DecisionEngine:
    return DecisionEngine(engine.portfolio, engine.model, policy)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Cut-offs and rules of any kind that the small portfolio can have."""
    low, high = sorted(draw(st.tuples(*[st.floats(0.01, 0.99)] * 2)))
    conditions = [
        {"feature": "bureau_score", "below": draw(st.floats(300, 900))},
        {"feature": "loan_to_income", "above": draw(st.floats(0.0, 1.0))},
        {
            "feature": "loan_purpose",
            "is_any_of": draw(st.sets(st.sampled_from(["car", "wedding", "other"]), min_size=1)),
        },
    ]
    chosen = draw(st.lists(st.sampled_from(range(3)), unique=True))
    rules = [
        {
            "code": f"R{n}",
            "when": conditions[n],
            "decision": draw(st.sampled_from(["REJECTED", "MANUAL_REVIEW"])),
            "reason": "r",
        }
        for n in chosen
    ]
    return Policy.model_validate({"version": "t", "approve_at": high, "review_at": low, "rules": rules})


class TestReplay:
    """What is taken again, and what is kept."""

    @settings(max_examples=12, deadline=None)
    @given(policy=policies(), seed=st.integers(0, 999))
    def test_the_policy_that_decided_changes_nobody(self, tiny_engine: DecisionEngine, policy: Policy, seed: int):
        matrix = applicants(60, seed)
        engine = under(tiny_engine, policy)

        found = simulate(recorded(matrix, engine.decide_rows(matrix)), {BUNDLE: engine}, policy=policy)

        assert not found["changed"].any()
        assert [""] == found["kept"].unique().tolist()

    @settings(max_examples=12, deadline=None)
    @given(policy=policies(), seed=st.integers(0, 999))
    def test_another_policy_decides_as_the_engine_would_have_with_it(
        self, tiny_engine: DecisionEngine, policy: Policy, seed: int
    ):
        """Decision, score, reasons and who decided, one application after the other."""
        matrix = applicants(60, seed)

        found = simulate(recorded(matrix, tiny_engine.decide_rows(matrix)), {BUNDLE: tiny_engine}, policy=policy)

        for row, alone in zip(found.itertuples(), under(tiny_engine, policy).decide_rows(matrix), strict=True):
            assert alone.decision == row.simulated
            assert (alone.score is None and np.isnan(row.simulated_score)) or alone.score == row.simulated_score
            assert (alone.decided_by, tuple(map(str, alone.reason_codes))) == (row.simulated_by, row.simulated_codes)
            assert row.changed == (row.actual != row.simulated) == bool(row.why)

    @settings(max_examples=10, deadline=None)
    @given(cut=st.floats(0.45, 0.98), higher=st.floats(0.0, 0.5), seed=st.integers(0, 99))
    def test_a_higher_cut_off_approves_nobody_more(
        self, tiny_engine: DecisionEngine, cut: float, higher: float, seed: int
    ):
        matrix = applicants(60, seed)
        table = recorded(matrix, tiny_engine.decide_rows(matrix))

        def approved(approve_at: float) -> set[str]:
            policy = tiny_engine.policy.model_copy(update={"approve_at": approve_at})
            found = simulate(table, {BUNDLE: tiny_engine}, policy=policy)
            return set(found.loc[found["simulated"] == "APPROVED", "decision_id"])

        assert approved(min(cut + higher, 0.99)) <= approved(cut)

    def test_decisions_that_no_policy_took_are_kept_as_they_were(self, tiny_engine: DecisionEngine):
        """The kill switch, a bureau that failed, an exception: another policy says nothing about them."""
        matrix = applicants(40, 1)
        plain = tiny_engine.decide_rows(matrix)
        answered = [
            *(reviewed(decision, stopped=True) for decision in plain[:10]),
            *(reviewed(decision, fault=Routing.ENRICHMENT_UNAVAILABLE) for decision in plain[10:20]),
            *[failed(tiny_engine)] * 10,
            *plain[30:],
        ]
        features = matrix.copy()
        features[20:30] = np.nan  # deciding failed before there were any

        found = simulate(recorded(features, answered), {BUNDLE: tiny_engine}, policy=approve_all())

        kept = found["kept"].value_counts().to_dict()
        stopped = sum(Routing.AUTOMATIC_DECISIONS_STOPPED in decision.reason_codes for decision in answered)
        assert stopped > 0
        assert {
            "": 20 - stopped,
            "AUTOMATIC_DECISIONS_STOPPED": stopped,
            "ENRICHMENT_UNAVAILABLE": 10,
            "DECISION_FAILED": 10,
        } == kept
        untouched = found[found["kept"] != ""]
        assert not untouched["changed"].any()
        assert (untouched["actual"] == untouched["simulated"]).all()

    @pytest.mark.parametrize(
        ("column", "value"),
        [("score", 0.123456), ("decision", "MANUAL_REVIEW"), ("decided_by", "rule"), ("feature.annual_income", 1.0)],
    )
    def test_a_record_that_its_bundle_contradicts_is_kept_and_told(
        self, tiny_engine: DecisionEngine, column: str, value: Any
    ):
        matrix = applicants(40, 2)
        plain = tiny_engine.decide_rows(matrix)
        first = next(n for n, decision in enumerate(plain) if decision.decision == "APPROVED")
        table = recorded(matrix, plain)
        table.loc[first, column] = value

        found = simulate(table, {BUNDLE: tiny_engine}, policy=approve_all())

        assert [NOT_REPRODUCED] == found.loc[found["kept"] != "", "kept"].tolist()
        assert NOT_REPRODUCED == found.loc[first, "kept"]
        assert not found.loc[first, "changed"]

    def test_decisions_of_a_bundle_that_is_gone_are_kept(self, tiny_engine: DecisionEngine):
        matrix = applicants(10, 3)
        table = recorded(matrix, tiny_engine.decide_rows(matrix), bundle=[BUNDLE] * 6 + ["c" * 64] * 4)

        found = simulate(table, {BUNDLE: tiny_engine}, policy=approve_all())

        assert [""] * 6 + [BUNDLE_MISSING] * 4 == found["kept"].tolist()

    def test_shadow_decisions_answered_nobody_and_are_left_out(self, tiny_engine: DecisionEngine):
        matrix = applicants(10, 3)
        table = recorded(matrix, tiny_engine.decide_rows(matrix), variant=["shadow"] * 4 + ["challenger"] * 6)

        found = simulate(table, {BUNDLE: tiny_engine}, policy=approve_all())

        assert 6 == len(found)
        assert {"challenger"} == set(found["variant"])

    def test_another_model_decides_with_its_own_scores_and_policy(self, tiny_engine: DecisionEngine):
        matrix = applicants(60, 4)
        other = under(slower(tiny_engine), tiny_engine.policy.model_copy(update={"approve_at": 0.7}))

        found = simulate(recorded(matrix, tiny_engine.decide_rows(matrix)), {BUNDLE: tiny_engine}, model=other)

        alone = other.decide_rows(matrix)
        assert [decision.decision for decision in alone] == found["simulated"].tolist()
        assert (found["simulated_score"] != found["actual_score"]).any()

    def test_a_model_of_other_features_is_refused_by_their_names(self, tiny: TinyLoans, tiny_engine: DecisionEngine):
        matrix = applicants(10, 3)
        table = recorded(matrix, tiny_engine.decide_rows(matrix))
        narrow = narrowed(tiny_engine)
        decided_by_narrow = {BUNDLE: narrow}

        with pytest.raises(SimulationError, match=r"did not record: loan_purpose"):
            simulate(table, decided_by_narrow, model=tiny_engine)

    def test_a_policy_that_asks_for_an_unknown_feature_is_refused_by_its_rule(self, tiny_engine: DecisionEngine):
        rule = {"code": "TALL", "when": {"feature": "shoe_size", "above": 50}, "decision": "REJECTED", "reason": "Tall"}
        policy = Policy.model_validate({"version": "2", "approve_at": 0.8, "review_at": 0.4, "rules": [rule]})
        matrix = applicants(10, 3)

        with pytest.raises(PolicyError, match="rule TALL: there is no feature 'shoe_size'"):
            simulate(recorded(matrix, tiny_engine.decide_rows(matrix)), {BUNDLE: tiny_engine}, policy=policy)

    def test_why_names_the_rule_or_cut_off_and_no_value(self, tiny_engine: DecisionEngine):
        matrix = applicants(200, 5)
        rule = {"code": "FOR_A_CAR", "when": {"feature": "loan_purpose", "is_any_of": ["car"]}, "decision": "REJECTED"}
        policy = Policy.model_validate(
            {"version": "2", "approve_at": 0.7, "review_at": 0.5, "rules": [{**rule, "reason": "No cars"}]}
        )

        found = simulate(recorded(matrix, tiny_engine.decide_rows(matrix)), {BUNDLE: tiny_engine}, policy=policy)

        told = {why.split("; ")[-1] for why in found.loc[found["changed"], "why"]}
        assert {"rule FOR_A_CAR", "the score reaches approve_at 0.7", "the score is below review_at 0.5"} <= told
        lifted = found[(found["actual_by"] == "rule") & found["changed"]]
        assert lifted["why"].str.startswith("BUREAU_SCORE_TOO_LOW no longer decides; ").any()


class TestFigures:
    """What a simulation says of approvals, losses and earnings."""

    def test_they_are_what_a_pencil_gives(self):
        """Four applications of 100, 100, 200 and 400; the second and fourth are approved instead of the first."""
        frame = sides(
            ["APPROVED", "REJECTED", "REJECTED", "MANUAL_REVIEW"], ["REJECTED", "APPROVED", "REJECTED", "APPROVED"]
        )
        frame["actual_score"] = frame["simulated_score"] = [0.9, 0.8, 0.5, 0.6]
        asked = Applications(np.array([100.0, 100.0, 200.0, 400.0]), np.array([1.0, np.nan, np.nan, 0.0]))

        found = {figure.name: figure for figure in figures(frame, asked, ECONOMICS)}

        def told(name: str) -> tuple[float, float, float]:
            figure = found[name]
            assert figure.actual and figure.simulated and figure.change
            return figure.actual.value, figure.simulated.value, figure.change.value

        assert (0.25, 0.5, 0.25) == told("approval_rate")
        assert (0.25, 0.0, -0.25) == told("review_rate")
        assert pytest.approx((0.125, 0.625, 0.5)) == told("lent")
        assert pytest.approx((0.1, 0.3, 0.2)) == told("expected_bad_rate")
        earned = 100 * (0.9 * 0.1 - 0.1 * 0.5), 100 * (0.8 * 0.1 - 0.2 * 0.5) + 400 * (0.6 * 0.1 - 0.4 * 0.5)
        assert pytest.approx((100 * earned[0] / 800, 100 * earned[1] / 800)) == told("expected_profit")[:2]
        assert pytest.approx((100 * earned[0] / 100, 100 * earned[1] / 500)) == told("expected_return")[:2]
        assert (1.0, 0.5, -0.5) == told("outcome_known")
        assert (0.0, 1.0, 1.0) == told("bad_rate")
        assert pytest.approx((10.0, -50.0, -60.0)) == told("return")

    def test_nothing_changed_is_a_change_of_exactly_nothing(self):
        same = ["APPROVED", "REJECTED", "MANUAL_REVIEW", "APPROVED"]
        frame = sides(same, same).assign(actual_score=0.7, simulated_score=0.7)

        for figure in figures(frame, Applications(None, np.full(4, np.nan)), ECONOMICS):
            assert figure.change is not None
            assert (0.0, (0.0, 0.0)) == (figure.change.value, figure.change.interval)

    def test_nobody_approved_has_no_bad_rate(self):
        frame = sides(["REJECTED"] * 3, ["REJECTED"] * 3).assign(actual_score=0.2, simulated_score=0.2)

        found = {figure.name: figure for figure in figures(frame, Applications(None, np.full(3, np.nan)), ECONOMICS)}

        assert found["expected_bad_rate"].actual is None
        assert found["expected_profit"].simulated is not None
        assert 0.0 == found["expected_profit"].simulated.value

    def test_another_models_promises_are_held_against_both_scores(self):
        """A model is not believed on its own scores alone."""
        frame = sides(["APPROVED"] * 4, ["APPROVED"] * 4).assign(actual_score=0.7, simulated_score=0.95)

        judged = figures(frame, Applications(None, np.full(4, np.nan)), ECONOMICS)

        rates = {
            one.judged_by: one.simulated.value for one in judged if one.name == "expected_bad_rate" and one.simulated
        }
        assert pytest.approx({"recorded scores": 0.3, "scores of the other model": 0.05}) == rates

    def test_ninety_five_of_a_hundred_intervals_of_a_change_hold_the_true_one(self):
        """On 200 draws of 300 applicants, whose scores are the truth, between cut-offs of 0.8 and 0.7."""
        random = np.random.default_rng(11)
        truth = None
        held = {"approval_rate": 0, "expected_bad_rate": 0, "expected_profit": 0}
        for draw in range(201):
            rows = 100_000 if draw == 0 else 300
            score = random.beta(5, 2, rows)
            amounts = random.lognormal(9, 0.5, rows)
            frame = sides(
                np.where(score >= 0.8, "APPROVED", "REJECTED"), np.where(score >= 0.7, "APPROVED", "REJECTED")
            )
            frame["actual_score"] = frame["simulated_score"] = score
            found = {
                one.name: one.change for one in figures(frame, Applications(amounts, np.full(rows, np.nan)), ECONOMICS)
            }
            if truth is None:
                truth = {name: found[name].value for name in held}
                continue
            for name, value in truth.items():
                low, high = found[name].interval
                held[name] += low <= value <= high

        assert all(0.90 <= count / 200 <= 0.99 for count in held.values()), held


class TestFairness:
    def test_a_cut_off_that_hurts_one_group_fails_four_fifths(self, tiny: TinyLoans):
        random = np.random.default_rng(5)
        group = np.where(random.random(2000) < 0.5, "a", "b")
        score = np.where(group == "a", random.uniform(0.5, 1.0, 2000), random.uniform(0.4, 0.9, 2000))
        frame = sides(np.where(score >= 0.5, "APPROVED", "REJECTED"), np.where(score >= 0.8, "APPROVED", "REJECTED"))
        lender = with_attribute(tiny, "region")

        rows = {row["group"]: row for row in fairness(frame, {"region": pd.Series(group)}, lender)}

        assert "pass" == rows["b"]["actual_verdict"]
        assert "fail" == rows["b"]["simulated_verdict"]
        low, high = rows["b"]["simulated_interval"]
        assert low < rows["b"]["simulated_impact_ratio"] < high < 0.8

    def test_what_was_not_collected_is_not_told(self, tiny: TinyLoans):
        frame = sides(["APPROVED"] * 3, ["APPROVED"] * 3)

        assert [] == fairness(frame, {"region": pd.Series([None] * 3)}, with_attribute(tiny, "region"))
        assert [] == fairness(frame, {}, with_attribute(tiny, "region"))


def test_moves_count_from_and_to_with_the_loss_by_score_and_by_outcome():
    frame = sides(["REJECTED"] * 3 + ["APPROVED"], ["APPROVED"] * 3 + ["APPROVED"])
    frame = frame.assign(simulated_score=[0.9, 0.7, 0.5, 0.9], why=["x", "x", "y", ""])

    (move,) = moves(frame, np.array([1.0, 0.0, np.nan, 1.0]))

    assert ("REJECTED", "APPROVED", 3, 2, 0.5) == tuple(
        move[name] for name in ("from", "to", "decisions", "outcomes_known", "bad_rate")
    )
    assert pytest.approx(0.3) == move["expected_bad_rate"]
    assert "x (2); y (1)" == move["why"]


def approve_all() -> Policy:
    return Policy(version="2", approve_at=0.000001, review_at=0.000001)


def sides(actual: Any, simulated: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"actual": list(actual), "simulated": list(simulated)})
    return frame.assign(changed=frame["actual"] != frame["simulated"])


def slower(engine: DecisionEngine) -> DecisionEngine:
    """The same trees, calibrated otherwise."""
    from dataclasses import replace

    calibrator = replace(engine.model.calibrator, intercept=engine.model.calibrator.intercept - 0.5)
    return DecisionEngine(engine.portfolio, replace(engine.model, calibrator=calibrator), engine.policy)


def narrowed(engine: DecisionEngine) -> DecisionEngine:
    """An engine whose portfolio knows no purpose; only what it is made of is asked."""
    from dataclasses import replace
    from types import SimpleNamespace

    features = tuple(feature for feature in engine.portfolio.features if feature.name != "loan_purpose")
    return SimpleNamespace(  # type: ignore[return-value]
        portfolio=replace(engine.portfolio, features=features), model=engine.model, policy=engine.policy
    )


def with_attribute(tiny: TinyLoans, name: str) -> Any:
    from dataclasses import replace

    attribute = ProtectedAttribute(name, lambda book: book[name], "gate", "for tests")
    return replace(tiny.portfolio, protected=(attribute,))

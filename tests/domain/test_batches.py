"""Many applications at once: to the bit what each of them gets alone."""

import json
import math
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.application import columns_of
from cde_domain.decisions.engine import Decision, DecisionEngine
from cde_domain.features.columns import columns_of_applications
from cde_domain.features.feature import feature_matrix
from cde_domain.portfolio import load_portfolio
from tests.support import TinyLoans

TODAY = date(2026, 3, 1)

money = st.floats(1, 1e7, exclude_min=True)
histories = st.none() | st.fixed_dictionaries(
    {
        "score": st.none() | st.floats(300, 900),
        "accounts": st.none() | st.lists(st.fixed_dictionaries({"balance": st.floats(0, 1e6)}), max_size=4),
    }
)
bodies = st.fixed_dictionaries(
    {
        "customer_id": st.just("c"),
        "annual_income": money,
        "loan_amount": money,
        "loan_purpose": st.sampled_from(["car", "wedding", "other"]),
        "credit_history": histories,
    }
)


def bits(decision: Decision) -> dict[str, Any]:
    """A decision with its numbers as the bits of their doubles."""

    def exact(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: exact(item) for name, item in value.items()}
        return np.float64(value).tobytes() if isinstance(value, float) else value

    return {name: exact(value) for name, value in asdict(decision).items()}


@settings(max_examples=60, deadline=None)
@given(st.lists(bodies, min_size=1, max_size=20))
def test_an_application_gets_the_same_bits_alone_and_among_others(
    tiny: TinyLoans, tiny_engine: DecisionEngine, applications: list[dict[str, Any]]
):
    models = [tiny.portfolio.application.model_validate(body) for body in applications]

    together = tiny_engine.decide_all(models, TODAY)

    assert [bits(tiny_engine.decide(model, TODAY)) for model in models] == [bits(one) for one in together]


def test_no_applications_are_no_decisions(tiny_engine: DecisionEngine):
    assert [] == tiny_engine.decide_all([], TODAY)


def test_lists_inside_applications_are_told_apart_from_none(tiny: TinyLoans, tiny_engine: DecisionEngine):
    """Neighbours with no history, no accounts and no known accounts do not take from one another."""
    histories = (None, {"score": 700.0}, {"score": 700.0, "accounts": []}, {"accounts": [{"balance": 5.0}] * 2})
    models = [
        tiny.portfolio.application.model_validate({**tiny.portfolio.example, "credit_history": history}, strict=False)
        for history in histories
    ]

    balances = [one.features["total_balance"] for one in tiny_engine.decide_all(models, TODAY)]

    assert [None, None, 0.0, 10.0] == balances


def test_the_shipped_portfolios_compute_the_same_features_in_bulk():
    """Every feature of a real portfolio, with its nested lists, in ten different applications of its example."""
    for name in ("personal_loan", "german_credit", "lending_club"):
        portfolio = load_portfolio(name)
        specs = columns_of(portfolio.application)
        example = dict(portfolio.example)
        number = next(key for key, value in example.items() if isinstance(value, int | float))
        models = [
            portfolio.application.model_validate_json(
                json.dumps({**example, number: type(example[number])(example[number] + step)})
            )
            for step in range(10)
        ]

        bulk = feature_matrix(portfolio.features, columns_of_applications(models, specs, TODAY))

        for model, row in zip(models, bulk, strict=True):
            alone = feature_matrix(portfolio.features, columns_of_applications([model], specs, TODAY))[0]
            assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(alone, row, strict=True)), name

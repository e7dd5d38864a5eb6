"""Facts about protected groups, read from the fairness report, and whether decisions are blind to them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.application import columns_of
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.policy import Policy
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.governance.facts import MEASURED_HERE, Fact, counted, not_applicable
from cde_domain.governance.fairness import Verdict
from cde_domain.intervals import Interval, absolute
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import Portfolio

ARTEFACT = "fairness_report.json"
SWAPPED_ROWS = 2_000

_IMPACT = ("impact_ratio", "equal_opportunity_difference", "equalized_odds_difference")
_SCORES = ("abs_smd", "abs_group_calibration_gap", "overall_auc_minus_group_auc")
_CELLS = ("share_of_pairs_reported", "cells_without_interval", "cells_clearly_below")


def fairness_facts(report: Mapping[str, Any], overall_auc: float) -> list[Fact]:
    """Impact, opportunity, scores, intersections and proxies by group; not applicable where nothing is protected."""
    attributes = report["attributes"]
    facts: list[Fact] = []
    for use, prefix in (("gate", "gated"), ("report", "reported")):
        chosen = [attribute for attribute in attributes if attribute["use"] == use]
        if not chosen:
            why = f"the portfolio has no protected attribute that {'gates' if use == 'gate' else 'is only reported'}"
            facts += not_applicable(ARTEFACT, why, [f"{prefix}_{name}" for name in _IMPACT])
        for attribute in chosen:
            facts += _impact(attribute, prefix)
    if not attributes:
        why = "the portfolio has no protected attribute"
        return facts + not_applicable(ARTEFACT, why, [*_SCORES, *_CELLS, "proxy_auc", "single_feature_proxy_auc"])
    for attribute in attributes:
        for row in attribute["scores"]:
            facts += _scores(row, f"{attribute['attribute']}={row['group']}", overall_auc)
    return facts + _cells(report) + _proxies(report["proxies"])


def _impact(attribute: Mapping[str, Any], prefix: str) -> list[Fact]:
    name = attribute["attribute"]
    facts = []
    for group in attribute["groups"]:
        if group["verdict"] == Verdict.REFERENCE:
            continue
        facts.append(
            Fact(
                f"{prefix}_impact_ratio",
                ARTEFACT,
                group["impact_ratio"],
                _interval(group["interval"]),
                f"{name}={group['group']}",
                sufficient=group["verdict"] in (Verdict.PASS, Verdict.FAIL),
            )
        )
    if not facts:
        facts.append(Fact(f"{prefix}_impact_ratio", ARTEFACT, subject=name, sufficient=False))
    for what in ("equal_opportunity", "equalized_odds"):
        gap = attribute["opportunity"][what]
        facts.append(
            Fact(
                f"{prefix}_{what}_difference",
                ARTEFACT,
                gap["difference"],
                _interval(gap["interval"]),
                name,
                sufficient=gap["sufficient"],
            )
        )
    return facts


def _interval(pair: list[float] | None) -> Interval | None:
    return None if pair is None else (pair[0], pair[1])


def _scores(row: Mapping[str, Any], subject: str, overall_auc: float) -> list[Fact]:
    facts = []
    for metric, measure, span in (
        ("abs_smd", "smd", "smd_interval"),
        ("abs_group_calibration_gap", "calibration_gap", "calibration_interval"),
    ):
        if row[measure] is None and measure == "smd" and row["mean_score"] is not None:
            continue  # the reference group
        value, interval = row[measure], row[span]
        facts.append(
            Fact(
                metric,
                ARTEFACT,
                None if value is None else abs(value),
                None if interval is None else absolute((interval[0], interval[1])),
                subject,
                sufficient=measure in row["sufficient"],
            )
        )
    area, interval = row["auc"], row["auc_interval"]
    return [
        *facts,
        Fact(
            "overall_auc_minus_group_auc",
            ARTEFACT,
            None if area is None else overall_auc - area,
            None if interval is None else (overall_auc - interval[1], overall_auc - interval[0]),
            subject,
            sufficient="auc" in row["sufficient"],
        ),
    ]


def _cells(report: Mapping[str, Any]) -> list[Fact]:
    expected = len(report["attributes"]) * (len(report["attributes"]) - 1) // 2
    if not expected:
        return not_applicable(ARTEFACT, "there is only one protected attribute", _CELLS)
    cells = [cell for pair in report["intersections"] for cell in pair["cells"]]
    judged = [cell for cell in cells if cell["verdict"] not in (Verdict.REFERENCE, Verdict.NOT_COMPUTED)]
    return [
        *counted(
            ARTEFACT,
            {
                "share_of_pairs_reported": len(report["intersections"]) / expected,
                "cells_without_interval": sum(cell["interval"] is None for cell in judged),
            },
        ),
        Fact(
            "cells_clearly_below",
            ARTEFACT,
            float(sum(cell["clearly_below"] for cell in cells)),
            # Nothing found among cells too small to judge is no proof that there is nothing.
            sufficient=any(cell["clearly_below"] for cell in cells)
            or all(cell["verdict"] in (Verdict.REFERENCE, Verdict.PASS, Verdict.FAIL) for cell in cells),
        ),
    ]


def _proxies(proxies: list[Mapping[str, Any]]) -> list[Fact]:
    return [
        Fact(metric, ARTEFACT, proxy[area], _interval(proxy[span]), subject, sufficient=proxy[area] is not None)
        for proxy in proxies
        for subject in [f"{proxy['attribute']}={proxy['group']}"]
        for metric, area, span in (
            ("proxy_auc", "auc", "interval"),
            ("single_feature_proxy_auc", "feature_auc", "feature_interval"),
        )
    ]


def blindness_facts(portfolio: Portfolio, model: ScoringModel, policy: Policy, book: pd.DataFrame) -> list[Fact]:
    """Decide applications twice, and once more with the protected attributes of other applicants."""
    protected = [name for name in book if str(name).startswith(PROTECTED_PREFIX)]
    random = np.random.default_rng(0)
    sample = book.iloc[np.sort(random.permutation(len(book))[:SWAPPED_ROWS])].reset_index(drop=True)
    first, second = (_decisions(portfolio, model, policy, sample) for _ in range(2))
    facts = counted(
        MEASURED_HERE,
        {
            # A policy has one `approve_at` and one `review_at`, and no field of it names a group.
            "n_distinct_threshold_sets": len({(policy.approve_at, policy.review_at)}),
            "randomised_predictor": bool((first != second).any()),
        },
    )
    if not protected:
        why = "the portfolio has no protected attribute"
        return facts + not_applicable(ARTEFACT, why, ["decisions_changed_by_swapping_protected"])
    order = random.permutation(len(sample))
    swapped = sample.assign(**{str(name): sample[name].to_numpy()[order] for name in protected})
    changed = int((_decisions(portfolio, model, policy, swapped) != first).sum())
    return facts + counted(MEASURED_HERE, {"decisions_changed_by_swapping_protected": changed})


def _decisions(portfolio: Portfolio, model: ScoringModel, policy: Policy, book: pd.DataFrame) -> NDArray[np.str_]:
    matrix = feature_matrix(portfolio.features, columns_of_frame(book, columns_of(portfolio.application)))
    return decide_all(portfolio.features, matrix, model.scores(matrix), policy, model)

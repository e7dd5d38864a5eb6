"""The feature table, its split, and what must be true of both."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from cde_domain.application import columns_of, request_of
from cde_domain.features.columns import columns_of_applications
from cde_domain.features.feature import Feature, feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_domain.model.metrics import auc
from cde_domain.portfolio import Portfolio

HOLDOUT_SHARE = 0.2
MIN_GROUP = 30  # smaller groups say nothing about what a feature gives away
GIVEN_AWAY = 0.95


def feature_table(portfolio: Portfolio, book: pd.DataFrame) -> pd.DataFrame:
    """The features of every application, with its identifiers, date and label."""
    matrix = feature_matrix(portfolio.features, columns_of_frame(book, columns_of(portfolio.application)))
    table = pd.DataFrame(matrix, columns=[feature.name for feature in portfolio.features])
    keys = book[["application_id", "customer_id", "applied_at"]].reset_index(drop=True)
    return pd.concat([keys, table, book["repaid"].reset_index(drop=True)], axis="columns")


def matrix_of(portfolio: Portfolio, table: pd.DataFrame) -> NDArray[np.float64]:
    """The model's inputs in a feature table, float64 of shape (rows, features)."""
    return np.ascontiguousarray(table[[feature.name for feature in portfolio.features]].to_numpy(dtype=np.float64))


def labels_of(rows: pd.DataFrame) -> NDArray[np.float64]:
    """The 0/1 outcomes of labelled rows."""
    return rows["repaid"].to_numpy(dtype=np.float64)


def split(table: pd.DataFrame, *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Labelled rows as training and hold-out sets, with no customer in both.

    Dated books are split by time: the latest fifth of the applications is held out, and customers who appear in it
    leave the training set. Undated books are split by a hash of the features, all loans of a customer together: the
    same loans in another order, or partly relabelled, are held out again, so that a champion never meets a loan that it
    learned from.
    """
    labelled = table[table["repaid"].notna()]
    if labelled["applied_at"].notna().all():
        ordered = labelled.sort_values(["applied_at", "application_id"])
        holdout = ordered.tail(max(1, round(HOLDOUT_SHARE * len(ordered))))
        rest = ordered.drop(holdout.index)
        training = rest[~rest["customer_id"].isin(holdout["customer_id"])]
    else:
        features = table.drop(columns=["application_id", "customer_id", "applied_at", "repaid"])
        loans = pd.util.hash_pandas_object(features, index=False)
        least = loans.groupby(table["customer_id"]).transform("min")[labelled.index].to_numpy()
        # Hashed again, since the least of a customer's many loans is small more often than that of a single one.
        customers = pd.util.hash_array(least + np.uint64(seed))
        is_held_out = customers < HOLDOUT_SHARE * 2**64
        training, holdout = labelled[~is_held_out], labelled[is_held_out]
    return training.reset_index(drop=True), holdout.reset_index(drop=True)


class ParityError(ValueError):
    """A row of the loan book that the request model refuses."""


@dataclass(frozen=True)
class ParityResult:
    """How many applications were computed one at a time, and which features gave other bits than in bulk."""

    rows: int
    differing: Mapping[str, int]


def online_parity(portfolio: Portfolio, book: pd.DataFrame, table: pd.DataFrame, rows: int, seed: int) -> ParityResult:
    """Send sampled rows through the request model and the one-row path, and compare their features to the bit."""
    specs = columns_of(portfolio.application)
    sample = np.random.default_rng(seed).permutation(len(book))[:rows]
    bulk = matrix_of(portfolio, table)
    differing = dict.fromkeys((feature.name for feature in portfolio.features), 0)
    for position, row in zip(sample, book.iloc[sample].to_dict("records"), strict=True):
        try:
            application = portfolio.application.model_validate_json(json.dumps(request_of(row, specs)))
        except ValidationError as error:  # which would quote the value
            fields = ", ".join(sorted({".".join(map(str, problem["loc"])) for problem in error.errors()}))
            raise ParityError(f"row {position + 1} of the loan book is no application: {fields}") from None
        online = feature_matrix(portfolio.features, columns_of_applications([application], specs, applied_on(row)))[0]
        unequal = online.view(np.uint64) != bulk[position].view(np.uint64)
        both_unknown = np.isnan(online) & np.isnan(bulk[position])
        for feature in np.flatnonzero(unequal & ~both_unknown):
            differing[portfolio.features[feature].name] += 1
    return ParityResult(len(sample), {name: count for name, count in differing.items() if count})


def applied_on(row: Mapping[str, Any]) -> date:
    """The day of an application; any fixed day in an undated book, where no feature can use it."""
    return date(1970, 1, 1) if pd.isna(row["applied_at"]) else row["applied_at"].date()


def single_feature_aucs(features: tuple[Feature, ...], table: pd.DataFrame) -> dict[str, float]:
    """How well each feature alone ranks the label: max(AUC, 1 - AUC), categories ranked by their repayment rate."""
    labelled = table[table["repaid"].notna()]
    repaid = labelled["repaid"].to_numpy()
    aucs = {}
    for feature in features:
        values = labelled[feature.name]
        if feature.categories:
            values = values.map(labelled.groupby(values)["repaid"].mean())
        known = values.notna().to_numpy()
        if known.sum() < MIN_GROUP or len(np.unique(repaid[known])) < 2:
            continue
        area = auc(repaid[known], values.to_numpy()[known])
        aucs[feature.name] = max(area, 1.0 - area)
    return aucs


def features_that_give_away(
    features: tuple[Feature, ...], book: pd.DataFrame, table: pd.DataFrame
) -> dict[tuple[str, str], float]:
    """
    Features from which a protected attribute can be read off: (feature, attribute) to balanced accuracy.

    Numeric features are judged by the best cut (balanced accuracy of one group against the rest), categorical ones by
    their categories' majorities. A copy, a recoding or a reversal of the attribute all score 1.
    """
    found: dict[tuple[str, str], float] = {}
    for column in [name for name in book if name.startswith(PROTECTED_PREFIX)]:
        groups = book[column].reset_index(drop=True)
        for feature in features:
            values = table[feature.name]
            known = (groups.notna() & values.notna()).to_numpy()
            for group, size in groups[known].value_counts().items():
                if size < MIN_GROUP or known.sum() - size < MIN_GROUP:
                    continue
                accuracy = _best_cut(
                    (groups[known] == group).to_numpy(), values.to_numpy()[known], bool(feature.categories)
                )
                key = (feature.name, column.removeprefix(PROTECTED_PREFIX))
                if accuracy >= GIVEN_AWAY:
                    found[key] = max(found.get(key, 0.0), accuracy)
    return found


def _best_cut(member: NDArray[np.bool_], values: NDArray[np.float64], categorical: bool) -> float:
    order = np.unique(values, return_inverse=True)[1]
    inside = np.bincount(order, weights=member) / member.sum()
    outside = np.bincount(order, weights=~member) / (~member).sum()
    if categorical:
        return float(np.maximum(inside, outside).sum() / 2)
    gap = np.abs(np.cumsum(inside) - np.cumsum(outside)).max()
    # A single value in the middle (a category coded as a number) gives an attribute away too.
    return float((1 + max(gap, np.abs(inside - outside).max())) / 2)

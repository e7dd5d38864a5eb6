"""Facts about the application, the loan book and its split."""

import re
from collections.abc import Iterator

import pandas as pd

from cde_domain.application import ColumnSpec, columns_of
from cde_domain.features.table import features_that_give_away, single_feature_aucs
from cde_domain.governance.facts import Fact, counted, not_applicable
from cde_domain.loan_book import immature, validate
from cde_domain.portfolio import Portfolio
from cde_domain.protected_names import PROTECTED_WORDS, is_named

# RBI Digital Lending Directions 2025, 12(i) and 13(iii); Directive (EU) 2023/2225, Art 18(3).
FORBIDDEN_SOURCES = frozenset(
    ("contacts", "contact_list", "call_log", "call_logs", "telephony", "media", "gallery", "sms", "biometric")
) | {"biometrics", "fingerprint", "iris", "social_network", "social_media"}
# RBI Digital Lending Directions 2025, 7(i): what must be recorded before lending.
ECONOMIC_PROFILE = {
    "age": r"date_of_birth|(^|_)age(_|$)",
    "occupation": r"occupation|employment|profession",
    "income": r"income|salary|annual_inc",
}


def _fields(columns: tuple[ColumnSpec, ...]) -> Iterator[ColumnSpec]:
    for column in columns:
        yield column
        yield from _fields(column.items)


def application_facts(portfolio: Portfolio, model_features: tuple[str, ...]) -> list[Fact]:
    """What the application asks for, and what of it the model uses."""
    fields = list(_fields(columns_of(portfolio.application)))
    declared = {feature.name for feature in portfolio.features}
    forbidden = [
        field
        for field in fields
        if is_named(field.name, FORBIDDEN_SOURCES) or is_named(field.source, FORBIDDEN_SOURCES)
    ]
    return counted(
        "the portfolio's application",
        {
            "n_undeclared_inputs": len(set(model_features) - declared),
            "n_forbidden_source_fields": len(forbidden),
            "purpose_coverage": sum(bool(field.purpose) for field in fields) / len(fields),
            "source_coverage": sum(bool(field.source) for field in fields) / len(fields),
        },
    )


def book_facts(portfolio: Portfolio, book: pd.DataFrame, features: pd.DataFrame) -> list[Fact]:
    """Whether the book is complete and valid, its outcomes mature, and no input a protected attribute or the label."""
    names = {feature.name for feature in portfolio.features} | {
        field.name for field in _fields(columns_of(portfolio.application))
    }
    words = PROTECTED_WORDS | {attribute.name for attribute in portfolio.protected}
    given_away = {feature for feature, _ in features_that_give_away(portfolio.features, book, features)}
    _, problems = validate(portfolio, book)
    facts = counted(
        "loan_book.parquet",
        {
            "n_protected_inputs": len({name for name in names if is_named(name, words)} | given_away),
            "schema_violation_rate": sum(max(problem.count, 1) for problem in problems) / len(book),
            "max_single_feature_auc": max(single_feature_aucs(portfolio.features, features).values()),
            "economic_profile_completeness": min(_known(book, pattern) for pattern in ECONOMIC_PROFILE.values()),
        },
    )
    days = portfolio.outcome.matures_after_days
    if days is None:
        return facts + not_applicable("loan_book.parquet", "the book has no dates", ["share_labels_matured"])
    labelled = int(book["repaid"].notna().sum())
    return facts + counted(
        "loan_book.parquet", {"share_labels_matured": 1 - float(immature(book, days).sum()) / labelled}
    )


def _known(book: pd.DataFrame, pattern: str) -> float:
    shares = [float(book[name].notna().mean()) for name in book if re.search(pattern, str(name))]
    return max(shares, default=0.0)  # what is not asked for is not recorded


def split_facts(training: pd.DataFrame, holdout: pd.DataFrame, learned: pd.DataFrame) -> list[Fact]:
    """
    Whether the hold-out is later than, and apart from, what was learned from.

    `learned` are all applications that the model met, those that a continued champion learned from before included.
    """
    met = set(training["customer_id"]) | set(learned["customer_id"])
    shared = len(met & set(holdout["customer_id"]))
    facts = counted("holdout_set.parquet", {"n_applicants_in_both": shared})
    if holdout["applied_at"].isna().any() or training["applied_at"].isna().any():
        why = "the book has no dates"
        return facts + not_applicable("holdout_set.parquet", why, ["days_between_train_end_and_holdout_start"])
    days = (holdout["applied_at"].min() - training["applied_at"].max()).days
    return facts + counted("holdout_set.parquet", {"days_between_train_end_and_holdout_start": float(days)})

"""What was decided and what became of it, by the day, read from the decision log."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import numpy as np

from cde_assets.decisions import GROUP, MONITORED
from cde_assets.decisions.day_files import LABELS, OUTCOME_RECORDS, RECORDS, DayFile, drop_erased, one_writer
from cde_assets.decisions.known_labels import LabelRow, Labels, believed
from cde_assets.decisions.shown import decisions_metadata, outcomes_metadata
from cde_assets.metadata import OWNERS, problem_table
from cde_checks.decisions import DAYS
from cde_domain.decisions.monitoring.recorded import (
    FEATURE_PREFIX,
    OUTCOMES,
    decisions_file,
    decisions_schema,
    outcomes_file,
)
from cde_domain.features.feature import Feature
from cde_domain.loan_book import PROTECTED_PREFIX, LoanBookError
from cde_domain.portfolio import Portfolio
from cde_resources.decision_log import DecisionLogResource, OpenLog
from cde_resources.portfolio import PortfolioResource
from cde_serving.decision_log import LogUnavailableError
from cde_serving.records.erasure import gone_customers
from cde_serving.records.periods import Decided, Followed, Period, Standing, count_outcomes, count_records, day_of

Row = TypeVar("Row")

# One run for many days is what a backfill of a log should be; that Dagster may still change it is no news to a lender.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    tags=MONITORED,
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=["champion_model"],
)
def decisions(
    context: dg.AssetExecutionContext, portfolio: PortfolioResource, decision_log: DecisionLogResource
) -> None:
    """
    The decisions of a day (UTC) as the decision log has them, shadow decisions too, with the features that decided.

    Customers are named by token, and who was erased is absent. Where the portfolio collects protected attributes for
    monitoring they stand beside; nothing that decides reads this table.
    """
    lending, home = portfolio.load(), portfolio.home
    days = _days(context)
    with _opened(decision_log) as log, one_writer(home):
        noted = dict(zip(days, count_records(log.engine, days), strict=True))  # what comes from now on makes it stale
        period = Period(log.engine, log.master, lending.name, days[0], days[-1])
        for day, decided in _by_day(days, period.decisions(), lambda one: one.record.record_id):
            _write_decisions(lending, home, day, decided, noted[day])
        drop_erased([decisions_file(home, day) for day in days], lambda: gone_customers(log.engine))
        for day in days:
            context.add_asset_metadata(decisions_metadata(home, day, last=days[-1]), partition_key=day.isoformat())
        if period.unreadable:
            context.log.error(f"{period.unreadable} records were changed and left out: run `cde verify-log`")


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    tags=MONITORED,
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=["decisions"],
)
def outcomes(
    context: dg.AssetExecutionContext, portfolio: PortfolioResource, decision_log: DecisionLogResource
) -> None:
    """
    What became of the loans that were decided on a day, whenever it became known.

    From the outcome route, where the last record stands, and from `labels/*.csv` and `*.parquet` in the portfolio's
    home; of both the later known counts, the route's where they are of one day. A labels file with a bad row is refused
    whole, and all days stay as they were.
    """
    lending, home = portfolio.load(), portfolio.home
    days = _days(context)
    with _opened(decision_log) as log, one_writer(home):
        try:
            labels, known = believed(home, lending, log.engine, portfolio.now().date())
        except LoanBookError as error:
            raise dg.Failure(str(error), {"problems": problem_table(error.problems)}, allow_retries=False) from error
        noted = dict(zip(days, count_outcomes(log.engine, days), strict=True))
        period = Period(log.engine, log.master, lending.name, days[0], days[-1])
        for day, followed in _by_day(days, period.outcomes(), lambda one: one.result.decision_id):
            _write_outcomes(home, day, followed, labels, known, noted[day])
        drop_erased([outcomes_file(home, day) for day in days], lambda: gone_customers(log.engine))
        for day in days:
            context.add_asset_metadata(outcomes_metadata(home, day), partition_key=day.isoformat())
        if period.unreadable:
            context.log.error(f"{period.unreadable} records were changed and left out: run `cde verify-log`")


@contextmanager
def _opened(decision_log: DecisionLogResource) -> Iterator[OpenLog]:
    try:
        with decision_log.open() as log:
            yield log
    except LogUnavailableError as error:
        raise dg.Failure(str(error)) from error


def _days(context: dg.AssetExecutionContext) -> list[date]:
    return [date.fromisoformat(key) for key in context.partition_keys]


def _by_day(
    days: list[date], rows: Iterable[Row], decision_id: Callable[[Row], str]
) -> Iterator[tuple[date, Iterator[Row]]]:
    """Every day with its rows, which come in the order of their decisions' ids; a day without any is a day."""
    groups = groupby(rows, key=lambda row: day_of(decision_id(row)))
    following = next(groups, None)
    for day in days:
        if following is not None and following[0] == day:
            yield day, following[1]
            following = next(groups, None)
        else:
            yield day, iter(())


def _write_decisions(lending: Portfolio, home: Path, day: date, decided: Iterator[Decided], records: int) -> None:
    positions = {
        feature.name: {value: float(place) for place, value in enumerate(feature.categories)}
        for feature in lending.features
    }
    schema = decisions_schema([feature.name for feature in lending.features], [one.name for one in lending.protected])
    with DayFile(decisions_file(home, day), schema, {RECORDS: str(records)}) as file:
        for one in decided:
            file.add(_decision_row(lending.features, positions, one))


def _decision_row(
    features: tuple[Feature, ...], positions: Mapping[str, Mapping[str, float]], one: Decided
) -> dict[str, Any]:
    record = one.record
    row: dict[str, Any] = {
        "decision_id": record.record_id,
        "tenant": record.tenant,
        "customer": one.customer,
        "applied_at": _moment(record.applied_at),
        "variant": record.variant,
        "about": record.payload.about,
        "bundle": record.versions.bundle,
        "model": record.versions.model,
        "policy": record.versions.policy,
        "policy_version": record.versions.policy_version,
        "code": record.versions.code,
        "decision": record.decision,
        "decided_by": record.decided_by,
        "score": record.payload.score,
        "reason_codes": list(record.reason_codes),
    }
    for feature in features:  # as this portfolio has them: a bundle of before may lack one, or know other categories
        value = record.payload.features.get(feature.name)
        if feature.categories and value is not None:
            value = positions[feature.name].get(str(value))
        row[FEATURE_PREFIX + feature.name] = np.nan if value is None else value
    for name, group in one.protected.items():
        row[PROTECTED_PREFIX + name] = group
    return row


def _write_outcomes(
    home: Path,
    day: date,
    followed: Iterator[Followed],
    labels: Labels,
    known: Mapping[str, Standing],
    records: int,
) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for one in followed:
        earlier = rows.get(one.result.decision_id)
        rows[one.result.decision_id] = _route_row(one, corrections=earlier["corrections"] + 1 if earlier else 0)
    for label in labels.by_day.get(day, ()):
        subject = known[label.decision_id]
        if subject.readable:
            rows[label.decision_id] = _later(rows.get(label.decision_id), _file_row(label, subject))
    notes = {OUTCOME_RECORDS: str(records), LABELS: labels.digest(day)}
    with DayFile(outcomes_file(home, day), OUTCOMES, notes) as file:
        for _, row in sorted(rows.items()):
            file.add(row)


def _route_row(one: Followed, *, corrections: int) -> dict[str, Any]:
    return {
        "decision_id": one.result.decision_id,
        "tenant": one.tenant,
        "customer": one.customer,
        "applied_at": _moment(one.applied_at),
        "outcome": one.result.outcome,
        "known_on": date.fromisoformat(one.result.date),
        "recorded_at": _moment(one.recorded_at),
        "source": "route",
        "corrections": corrections,
    }


def _file_row(label: LabelRow, subject: Standing) -> dict[str, Any]:
    return {
        "decision_id": label.decision_id,
        "tenant": subject.tenant,
        "customer": subject.customer,
        "applied_at": _moment(subject.applied_at),
        "outcome": label.outcome,
        "known_on": label.known_on,
        "recorded_at": label.recorded_at,
        "source": "file",
        "corrections": label.corrections,
    }


def _later(route: dict[str, Any] | None, file: dict[str, Any]) -> dict[str, Any]:
    """Of two accounts of one loan the later known; the route's, which is signed, where both are of one day."""
    if route is None:
        return file
    stands, earlier = (file, route) if file["known_on"] > route["known_on"] else (route, file)
    corrected = stands["outcome"] != earlier["outcome"]
    return {**stands, "corrections": stands["corrections"] + earlier["corrections"] + corrected}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)

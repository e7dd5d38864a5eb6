"""What is done once a day beside the asset graph: shred what is due, and measure the running service."""

from collections.abc import Callable

import dagster as dg

from cde_domain.portfolio import Portfolio
from cde_serving.settings import Settings

REPLAYED = 1000


def daily_jobs(
    settings: Settings, portfolio: Portfolio, *, chosen: bool
) -> tuple[list[dg.JobDefinition], list[dg.ScheduleDefinition]]:
    """
    The jobs and their schedules, at night in UTC.

    Shredding runs by itself for the chosen portfolio, since the law asks for it. Measuring is switched on by a person,
    because what it finds can stop promotions.
    """
    running = dg.DefaultScheduleStatus.RUNNING if chosen else dg.DefaultScheduleStatus.STOPPED
    jobs = [
        _job("erase_due", erase_due(settings, portfolio), portfolio),
        _job("operation_facts", operation_facts(settings, portfolio), portfolio),
    ]
    schedules = [
        dg.ScheduleDefinition(job=jobs[0], cron_schedule="10 1 * * *", default_status=running),
        dg.ScheduleDefinition(job=jobs[1], cron_schedule="40 1 * * *"),
    ]
    return jobs, schedules


def erase_due(settings: Settings, portfolio: Portfolio) -> Callable[[dg.OpExecutionContext], None]:
    """What the job of this name does."""

    def carry_out(context: dg.OpExecutionContext) -> None:
        """Shred the keys of customers whose retention has ended, and drop erased customers from all tables."""
        from cde_assets.erasing import Erasing
        from cde_serving.decision_log import DecisionLog, LogUnavailableError
        from cde_serving.records.database import open_reader

        try:
            open_reader(settings.log_url(portfolio.name), portfolio.name).dispose()
        except LogUnavailableError as none:
            context.log.info(str(none))
            return
        log = DecisionLog.open(settings, portfolio.name, hasty_reads=False)
        try:
            shredded, rows = Erasing(log, settings, portfolio, by="schedule:erase_due").erase_due()
        finally:
            log.close()
        context.log.info(f"{shredded} customers shredded, {rows} rows dropped from tables")

    return carry_out


def operation_facts(settings: Settings, portfolio: Portfolio) -> Callable[[dg.OpExecutionContext], None]:
    """What the job of this name does."""

    def carry_out(context: dg.OpExecutionContext) -> None:
        """Measure the running service, sign what was found, and tell which rules of operation failed."""
        from cde_assets.measuring import NothingToMeasureError, measure

        page = f"http://{settings.host}:{settings.port}/metrics"
        try:
            found = measure(settings, portfolio, sample=REPLAYED, metrics_url=page)
        except NothingToMeasureError as none:
            context.log.info(str(none))
            return
        for rule in found.rules:
            told = f"{rule.id} {rule.said}: {rule.title}. {rule.plain()}"
            (context.log.error if rule.blocks else context.log.info)(told)
        for hit in found.hits:
            context.log.error(f"a value of {hit.field} ({hit.form}) stands in {hit.file}")

    return carry_out


def _job(name: str, carry_out: Callable[[dg.OpExecutionContext], None], portfolio: Portfolio) -> dg.JobDefinition:
    op = dg.op(name=f"{name}_of_{portfolio.name}", description=carry_out.__doc__)(carry_out)

    @dg.job(name=name, description=carry_out.__doc__, tags={"portfolio": portfolio.name})
    def daily() -> None:
        op()

    return daily

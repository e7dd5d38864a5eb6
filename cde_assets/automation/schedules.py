"""What comes round by the calendar: a training every week, a person's look at the card every quarter."""

from datetime import datetime

import dagster as dg

from cde_assets.automation.links import asset_link
from cde_assets.automation.training_runs import TRAINING_JOB, training_request, unfinished_training
from cde_assets.automation.watcher import Watcher
from cde_domain.governance.card import FILES
from cde_resources.alerts.alert import Alert
from cde_resources.releases import ReleasesResource

REVIEW_JOB = "review_model_card"
WEEKLY = "0 2 * * 0"  # Sunday night, UTC
QUARTERLY = "0 6 1 1,4,7,10 *"


def weekly_retraining(watcher: Watcher) -> dg.ScheduleDefinition:
    """The schedule of this name."""

    @dg.schedule(
        WEEKLY,
        name="weekly_retraining",
        job_name=TRAINING_JOB,
        default_status=_status(watcher),
        description="Trains a challenger on the whole loan book on Sundays at 02:00 UTC, unless one is being trained.",
    )
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if not watcher.has_champion():
            return dg.SkipReason("No model is promoted yet.")
        if unfinished_training(context.instance, watcher.name):
            return dg.SkipReason("A challenger is being trained already.")
        if experiment := watcher.experiment():
            return dg.SkipReason(f"A challenger is in the experiment {experiment}.")
        at = context.scheduled_execution_time
        return training_request(watcher.name, "weekly", run_key=f"weekly:{at:%Y-%m-%d}", now=at)

    return evaluate


def quarterly_card_review(watcher: Watcher) -> dg.ScheduleDefinition:
    """The schedule of this name."""

    @dg.schedule(
        QUARTERLY,
        name="quarterly_card_review",
        job_name=REVIEW_JOB,
        default_status=_status(watcher),
        description="Asks a person to review the champion's card on the first day of every quarter at 06:00 UTC, and "
        "makes the card again from what is known then unless a challenger waits for its promotion.",
    )
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        at = context.scheduled_execution_time
        champion = _champion(watcher)
        if champion is None:
            return dg.SkipReason("No model is promoted yet.")
        again = champion == _challenger(context.instance, watcher)
        watcher.alerter.send(_review(watcher, champion, at, again=again))
        if not again:
            # The card is made for the challenger, whose evidence a new one would outdate.
            return dg.SkipReason("A person was asked to review the champion's card, which stays as it was signed.")
        return dg.RunRequest(run_key=f"review:{_quarter(at)}", tags={"portfolio": watcher.name})

    return evaluate


def review_job(watcher: Watcher) -> "dg.UnresolvedAssetJobDefinition":
    """The job that makes the card again."""
    return dg.define_asset_job(
        REVIEW_JOB,
        selection=dg.AssetSelection.assets(watcher.key("model_card")),
        description="The model card, made again for its review.",
        tags={"portfolio": watcher.name},
    )


def _review(watcher: Watcher, champion: str, at: datetime, *, again: bool) -> Alert:
    page = watcher.settings.portfolio_home(watcher.name) / "models" / champion / FILES["html"]
    return Alert(
        key=f"card_review:{_quarter(at)}",
        title=f"The model card is due for its review of {_quarter(at)}",
        what=(
            f"A person has to read the card of the champion, model {champion[:12]}: do use, limits, numbers and "
            f"reviewers still hold? It lies at {page}. What no program can decide is signed with `cde attest`."
        ),
        where=asset_link(watcher.settings, watcher.key("model_card")),
        did=(
            f"Makes the card again from what is known today (job {REVIEW_JOB})."
            if again
            else "Nothing: a challenger waits for its promotion, and a new card would outdate its evidence."
        ),
        severity="info",
    )


def _champion(watcher: Watcher) -> str | None:
    """The digest of the model that is promoted."""
    current = ReleasesResource.of(watcher.settings, watcher.name).store().ledger.current()
    return current.details.get("model_digest") if current is not None else None


def _challenger(instance: dg.DagsterInstance, watcher: Watcher) -> str | None:
    """The digest of the model that was trained last."""
    event = instance.get_latest_materialization_event(watcher.key("challenger_model"))
    metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
    return str(metadata["model_digest"].value) if "model_digest" in metadata else None


def _quarter(at: datetime) -> str:
    return f"{at.year}-Q{(at.month + 2) // 3}"


def _status(watcher: Watcher) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if watcher.chosen else dg.DefaultScheduleStatus.STOPPED

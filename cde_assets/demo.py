"""`make demo`: the main job with a person watching, and one decision at the end."""

import json
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cde_assets.api_keys import key_for_a_moment
from cde_assets.definitions import JOB, build_definitions
from cde_assets.failures import failure_in_words
from cde_assets.processes import ServerError, free_port
from cde_assets.stack import START_SECONDS, prepare_home, promoted_bento, scoring_server
from cde_checks.refusal import unsettled
from cde_domain.governance.card import FILES
from cde_serving.decision_log import LogUnavailableError
from cde_serving.settings import Settings

SHOWN_NUMBERS = 4


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The Dagster instance of this home."""
    return dg.DagsterInstance.from_config(str(prepare_home(settings)))


def run_demo(settings: Settings) -> int:
    """Run the whole job and score the example; exit status 0 with a decision, 1 with the reason why there is none."""
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    console.print(f"[bold]Credit decision engine[/bold]: {settings.portfolio}, state in {settings.home}")
    if not run_job(settings, console):
        return 1
    evidence = _artefacts(settings)
    console.print(_headline(evidence))
    console.print(unsettled(evidence["compliance_report"]["rules"]), markup=False)
    model = evidence["evidence_pack"]["model_digest"]
    console.print(f"Its card: {settings.portfolio_home(settings.portfolio_name()) / 'models' / model / FILES['html']}")
    pack = settings.portfolio_home(settings.portfolio_name()) / "evidence" / evidence["evidence_pack"]["digest"]
    console.print(f"The evidence for it is signed. Verify it with: cde verify-evidence {pack}")
    try:
        decision = _score_example(settings, console)
    except (ServerError, LogUnavailableError, httpx.HTTPError) as error:
        console.print(f"The service gave no decision: {error}", style="red", markup=False)
        return 1
    target = settings.home / "demo" / "decision.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(decision, indent=2) + "\n", encoding="utf-8")
    console.print_json(data=decision)
    console.print(f"[bold]{decision['decision']}[/bold] at a score of {decision['score']}, written to {target}")
    console.print(
        f"done in {time.monotonic() - started:.0f} s. Look around with: make up PORTFOLIO={settings.portfolio}"
    )
    return 0


def run_job(settings: Settings, console: Console) -> bool:
    """Materialise everything in this process, telling each step; on failure say what failed and what to do."""
    console.print("loading the asset graph ...")
    _quiet()
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    job = build_definitions(settings.portfolio, settings).resolve_job_def(JOB)
    with open_instance(settings) as instance:
        narrator = Narrator(console)
        run_id = dg._core.utils.make_new_run_id()
        instance.add_event_listener(run_id, narrator)
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    if not result.success:
        narrator.explain_failure(settings)
    return bool(result.success)


class Narrator:
    """Tells the events of a run to a person: each asset with its numbers, each check with its verdict."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._failures: list[str] = []

    def __call__(self, entry: dg.EventLogEntry) -> None:
        """Tell one event."""
        event = entry.dagster_event
        if event is None:
            return
        if event.is_step_start and event.step_key and "_check" not in event.step_key:
            self._began = time.monotonic()
        elif event.is_step_materialization:
            self._materialised(event.step_materialization_data.materialization)
        elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event.asset_check_evaluation_data)
        elif event.is_step_failure:
            self._failed(event)

    def explain_failure(self, settings: Settings) -> None:
        """Say what stopped the run and what to do."""
        self._console.print(
            "\n[bold red]No model was promoted.[/bold red] The champion, if there is one, stays as it was."
        )
        for failure in self._failures:
            self._console.print(failure, style="red", markup=False)
        self._console.print(
            f"Mend what is named above and run again; see it in the UI with: make up PORTFOLIO={settings.portfolio}"
        )

    def _materialised(self, materialization: dg.AssetMaterialization) -> None:
        numbers = [
            f"{name.removeprefix('dagster/')} {_short(value.value)}"
            for name, value in materialization.metadata.items()
            if isinstance(value, dg.FloatMetadataValue | dg.IntMetadataValue)
        ]
        name = materialization.asset_key.path[-1]
        seconds = time.monotonic() - self._began
        self._console.print(
            f"  [bold]{name:<24}[/bold] {', '.join(numbers[:SHOWN_NUMBERS])} [dim]{seconds:.1f} s[/dim]"
        )

    def _checked(self, check: Any) -> None:
        mark = "[green]passed[/green]" if check.passed else "[bold red]failed[/bold red]"
        said = f": {escape(check.description)}" if check.description else ""
        self._console.print(f"      {mark} {check.check_name.replace('_', ' ')}{said}")
        if not check.passed:
            self._failures.append(f"{check.asset_key.path[-1]}/{check.check_name}: {check.description or 'failed'}")

    def _failed(self, event: dg.DagsterEvent) -> None:
        if words := failure_in_words(event):
            self._failures.append(words)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def _quiet() -> None:
    warnings.filterwarnings("ignore")  # deprecations inside libraries are no news to a lender
    for name in ("mlflow", "alembic", "dagster", "mlflow.store.model_registry.abstract_store"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _artefacts(settings: Settings) -> dict[str, Any]:
    folder: Path = settings.home / "artefacts" / settings.portfolio_name()
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in _TOLD}


_TOLD = ("evaluation", "fairness_report", "compliance_report", "evidence_pack")


def _headline(evidence: dict[str, Any]) -> Table:
    evaluation = evidence["evaluation"]
    folds, holdout = evaluation["cross_validation"], evaluation["holdout"]
    table = Table(title="How good the promoted model is", title_justify="left")
    for column in (
        "",
        f"{folds['folds']}-fold cross-validation, n={folds['rows']:,}",
        f"hold-out, n={holdout['rows']:,}",
    ):
        table.add_column(column)
    table.add_row("AUC", f"{folds['auc_mean']:.3f} ± {folds['auc_sd']:.3f}", f"{holdout['auc']:.3f}")
    for name in ("brier", "calibration_error", "ks"):
        table.add_row(name.replace("_", " ").capitalize(), f"{folds[name]:.4f}", f"{holdout[name]:.4f}")
    table.add_row("Approved", "", f"{evaluation['decisions']['approval_rate']:.1%}")
    for result in evidence["fairness_report"]["attributes"]:
        table.add_row(f"Fairness by {result['attribute']}", f"{result['verdict']} ({result['use']})", "")
    return table


def _score_example(settings: Settings, console: Console) -> dict[str, Any]:
    from cde_domain.portfolio import load_portfolio

    tag = promoted_bento(settings)
    if tag is None:
        raise ServerError("no bento was built")
    port = free_port(settings.host)
    console.print(f"serving {tag} on port {port} ...")
    with key_for_a_moment(settings, "score") as key, scoring_server(settings, tag, port) as server:
        server.wait(START_SECONDS)
        example = dict(load_portfolio(settings.portfolio).example)
        console.print("POST /api/v1/credit/score", json.dumps(example), markup=False)
        headers = {"authorization": f"Bearer {key}"}
        url = f"http://{settings.host}:{port}/api/v1/credit/score"
        response = httpx.post(url, json=example, headers=headers, timeout=30.0)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

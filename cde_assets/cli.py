"""The `cde` command. Exit status: 0 is yes, 1 is no, 2 is misuse."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Run the credit decision engine and ask it questions."
)

experiment_app = typer.Typer(no_args_is_help=True, help="Let a challenger decide for a share of the customers.")
app.add_typer(experiment_app, name="experiment")

keys_app = typer.Typer(no_args_is_help=True, help="API keys: who may ask the service for what.")
app.add_typer(keys_app, name="keys")

KeyPortfolioOption = Annotated[str | None, typer.Option("--portfolio", help="As for the other commands.")]
PortfolioArgument = Annotated[
    str | None,
    typer.Argument(
        help="personal_loan, german_credit, lending_club, or an import path like my_bank.car_loans:PORTFOLIO"
    ),
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="NAME=VALUE, an option of the portfolio's sources, e.g. rows=60000 or path=loans.csv"
    ),
]


def _choose(portfolio: str | None, options: list[str] | None = None) -> Any:
    """Make the choice on the command line the settings of this process and of every one it starts."""
    from pydantic import ValidationError

    from cde_assets.telemetry import switch_telemetry_off
    from cde_domain.portfolio import PortfolioError, load_portfolio
    from cde_serving.settings import Settings

    switch_telemetry_off()
    if portfolio:
        os.environ["CDE_PORTFOLIO"] = portfolio
    try:
        if options:
            os.environ["CDE_SOURCE_OPTIONS"] = json.dumps(dict(_option(option) for option in options))
        settings = Settings()
        load_portfolio(settings.portfolio).options.model_validate(settings.source_options)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise typer.BadParameter(problems, param_hint="--option") from error
    except PortfolioError as error:
        raise typer.BadParameter(str(error), param_hint="PORTFOLIO") from error
    os.environ["CDE_HOME"] = str(settings.home)
    return settings


def _option(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not equals:
        raise typer.BadParameter(f"{option!r} is not NAME=VALUE", param_hint="--option")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _rulebook() -> Any:
    """The rulebook; a bad one is told at once, not after minutes of training."""
    from cde_domain.governance.rulebook import Rulebook, RulebookError

    try:
        return Rulebook.read()
    except RulebookError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _unfiled(key: Any, name: str, key_file: Path, releases: Any) -> str:
    """Where to file the public key of a person that no file holds yet; nothing for the platform's own key."""
    platform = releases.platform_keys()
    if key.id in releases.approvers().keys or (platform and key.id in platform.keys):
        return ""
    target = Path(releases.approver_keys) / f"{name}.pem"
    return f". If it is {name}'s, file the public key: openssl pkey -in {key_file} -pubout -out {target}"


@app.command()
def demo(portfolio: PortfolioArgument = None, option: OptionsOption = None) -> None:
    """Go the whole way: loan book, model, promotion, served bento, and one decision on the portfolio's example."""
    settings = _choose(portfolio, option)
    _rulebook()
    from cde_assets.demo import run_demo

    raise typer.Exit(run_demo(settings))


@app.command()
def up(portfolio: PortfolioArgument = None, option: OptionsOption = None) -> None:
    """Start Dagster, MLflow and the scoring service, and keep them running until Ctrl-C."""
    settings = _choose(portfolio, option)
    _rulebook()
    from cde_assets.stack import run_stack

    raise typer.Exit(run_stack(settings))


@app.command()
def serve(
    portfolio: PortfolioArgument = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 8000 by default.")] = None,
) -> None:
    """Serve the promoted bento in the foreground."""
    settings = _choose(portfolio)
    from cde_assets.stack import serve_promoted

    serve_promoted(settings, port or settings.port)


@app.command("why-not")
def why_not(portfolio: PortfolioArgument = None) -> None:
    """Explain why the latest challenger cannot be promoted: which statement, which number, what to do."""
    settings = _choose(portfolio)
    from cde_assets.demo import open_instance
    from cde_checks.gate import examine
    from cde_checks.refusal import explained, unsettled
    from cde_resources.portfolio import PortfolioResource
    from cde_resources.releases import ReleasesResource

    name = settings.portfolio_name()
    portfolio_resource = PortfolioResource(reference=settings.portfolio, state=str(settings.home))
    with open_instance(settings) as instance:
        case = examine(instance, portfolio_resource, ReleasesResource.of(settings, name))
    if not (found := case.refusals):
        typer.echo(f"The latest challenger of {name} passed every check; nothing stands in the way of its promotion.")
        if case.pack:
            typer.echo(unsettled(case.pack.report("reports/compliance_report.json")["rules"]))
        return
    typer.echo(f"The latest challenger of {name} cannot be promoted:")
    typer.echo(explained(found))
    raise typer.Exit(1)


@app.command("verify-evidence")
def verify_evidence(
    folder: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="The evidence pack.")],
    key: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The public key to trust; that of the settings by default."),
    ] = None,
) -> None:
    """Verify an evidence pack offline: its signature, and that no file was changed, added or removed."""
    from cde_serving.evidence import EvidenceError, verify_pack
    from cde_serving.settings import Settings
    from cde_serving.signing import SignatureError, TrustedKeys

    try:
        trusted = TrustedKeys.read(key or Settings().verify_key_file())
    except SignatureError as error:
        raise typer.BadParameter(str(error), param_hint="--key") from error
    try:
        pack = verify_pack(folder, trusted)
    except EvidenceError as error:
        typer.echo(f"{folder}: NOT verified: {error}")
        raise typer.Exit(1) from error
    manifest = pack.manifest
    failed = [f"{result.asset}/{result.check}" for result in pack.checks if not result.passed]
    typer.echo(f"{folder}: verified")
    typer.echo(f"  evidence {pack.digest}")
    typer.echo(f"  model    {manifest.model_digest} of {manifest.portfolio}, commit {manifest.commit or 'unknown'}")
    typer.echo(f"  made     {manifest.created_at:%Y-%m-%d %H:%M} UTC in run {manifest.run}")
    typer.echo(f"  holds    {len(manifest.files)} files, {len(pack.checks)} check results")
    typer.echo(f"  failed   {', '.join(failed) or 'none'}")


@app.command("verify-log")
def verify_log(
    portfolio: PortfolioArgument = None,
    checkpoints: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A copy of the checkpoints kept elsewhere.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The public key to trust; that of the settings by default."),
    ] = None,
) -> None:
    """Verify the decision log: find and locate what was changed, removed, reordered, cut off or rewritten."""
    settings = _choose(portfolio)
    from cde_assets.log_commands import verify

    raise typer.Exit(verify(settings, checkpoints, key))


@app.command()
def replay(
    decision_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The decision.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every recorded decision.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose decision ID is.")] = "default",
    portfolio: Annotated[str | None, typer.Option(help="The portfolio, as for the other commands.")] = None,
    bundles: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="A further folder of bundles.")
    ] = None,
) -> None:
    """Take recorded decisions again, with the bundle that took them: are score, decision and reasons the same?"""
    if (decision_id is None) != all_:
        raise typer.BadParameter("give the ID of one decision, or --all")
    settings = _choose(portfolio)
    from cde_assets.log_commands import replay as take_again

    raise typer.Exit(take_again(settings, decision_id, bundles, tenant))


@app.command()
def erase(
    customer: Annotated[str | None, typer.Argument(metavar="[CUSTOMER]", help="The customer's id.")] = None,
    now: Annotated[bool, typer.Option("--now", help="No duty to keep applies: shred at once.")] = False,
    due: Annotated[bool, typer.Option("--due", help="Shred whoever's retention has ended.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose customer it is.")] = "default",
    portfolio: Annotated[str | None, typer.Option(help="The portfolio, as for the other commands.")] = None,
) -> None:
    """Erase a customer: restrict at once, and shred the key when the retention ends. The chain still verifies."""
    if customer is None and not due:
        raise typer.BadParameter("give a customer's id, or --due")
    settings = _choose(portfolio)
    from cde_assets.log_commands import erase as carry_out

    raise typer.Exit(carry_out(settings, customer, now=now, due=due, tenant=tenant))


@keys_app.command("create")
def create_key(
    scope: Annotated[list[str], typer.Option(help="score, read, review or admin; give it once for each.")],
    tenant: Annotated[str, typer.Option(help="Whose decisions it makes and sees; no other tenant does.")],
    rate: Annotated[str | None, typer.Option(help="How often it may ask, like 100/second.")] = None,
    name: Annotated[str | None, typer.Option(help="What it is for, like 'core banking'.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="How long it counts; for good by default.")] = None,
    portfolio: KeyPortfolioOption = None,
) -> None:
    """Create an API key and print it, this once; the decision log keeps a keyed hash and who created it."""
    settings = _choose(portfolio)
    from cde_assets.key_commands import create

    raise typer.Exit(create(settings, tenant=tenant, scopes=scope, rate=rate, name=name, days=days))


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEYID", help="The key's id, its middle part.")],
    portfolio: KeyPortfolioOption = None,
) -> None:
    """Revoke an API key: a running service lets it in for a second more at most."""
    settings = _choose(portfolio)
    from cde_assets.key_commands import revoke

    raise typer.Exit(revoke(settings, key_id))


@keys_app.command("list")
def list_keys(portfolio: KeyPortfolioOption = None) -> None:
    """Print every API key, also revoked ones, without its secret."""
    settings = _choose(portfolio)
    from cde_assets.key_commands import list_all

    raise typer.Exit(list_all(settings))


@app.command("measure-operation")
def measure_operation(
    portfolio: PortfolioArgument = None,
    sample: Annotated[int, typer.Option(min=1, help="How many decisions to take again.")] = 1000,
) -> None:
    """Measure the running service for the rules of operation, and sign what was found; a failure stops promotions."""
    settings = _choose(portfolio)
    _rulebook()
    from cde_assets.log_commands import measure_operation as carry_out

    raise typer.Exit(carry_out(settings, sample))


@app.command("stop-auto")
def stop_auto(
    portfolio: PortfolioArgument = None,
    reason: Annotated[str, typer.Option(help="Why, for the log; name no person.")] = "",
) -> None:
    """Send every automatic decision to MANUAL_REVIEW within two seconds, without a restart, until resumed."""
    settings = _choose(portfolio)
    from cde_assets.log_commands import turn_switch

    raise typer.Exit(turn_switch(settings, "stop_auto", by=_os_user(), reason=reason))


@app.command("resume-auto")
def resume_auto(
    portfolio: PortfolioArgument = None,
    reason: Annotated[str, typer.Option(help="Why, for the log; name no person.")] = "",
) -> None:
    """Let decisions be taken automatically again after `stop-auto`."""
    settings = _choose(portfolio)
    from cde_assets.log_commands import turn_switch

    raise typer.Exit(turn_switch(settings, "resume_auto", by=_os_user(), reason=reason))


@app.command()
def approve(
    evidence: Annotated[str, typer.Option(help="The digest of the evidence pack.")],
    key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The approver's private key (PEM).")],
    name: Annotated[str, typer.Option(help="The approver, under whose name the public key is filed.")],
    portfolio: PortfolioArgument = None,
    valid_days: Annotated[int, typer.Option(min=1, max=365, help="How long the approval counts.")] = 30,
) -> None:
    """Sign an approval of one evidence pack with the approver's own key."""
    settings = _choose(portfolio)
    from cde_resources.releases import ReleasesResource
    from cde_serving.approvals import Approval, ApprovalError, write_approval
    from cde_serving.evidence import EvidenceError, verify_pack
    from cde_serving.signing import SignatureError, SigningKey

    releases = ReleasesResource.of(settings, settings.portfolio_name())
    store = releases.store()
    folder = store.evidence / evidence
    if len(evidence) != 64 or not folder.is_dir():
        raise typer.BadParameter(f"there is no {folder}", param_hint="--evidence")
    unfiled = ""
    try:
        private = SigningKey.read(key)
        unfiled = _unfiled(private.public, name, key, releases)
        trusted, now = releases.trusted(), releases.now()
        pack = verify_pack(folder, trusted)
        if pack.digest != evidence:
            raise EvidenceError(f"it is the pack {pack.digest[:12]}")
        approval = Approval.of(pack, name=name, key=private, at=now, days=valid_days)
        approval.verify(pack, approvers=releases.approvers(), platform=trusted, now=now)
    except (EvidenceError, ApprovalError, SignatureError) as error:
        typer.echo(f"Not approved: {error}{unfiled}")
        raise typer.Exit(1) from error
    typer.echo(f"{name} approves model {pack.manifest.model_digest[:12]} until {approval.valid_until:%Y-%m-%d}:")
    typer.echo(f"  {write_approval(store.approvals, approval)}")
    typer.echo("Materialise champion_model and scoring_bento to promote it.")


@app.command()
def attest(
    portfolio: Annotated[str, typer.Argument(help="The portfolio, as for every command.")],
    rule: Annotated[str, typer.Argument(help="The rule that no program can decide, e.g. GOV-01.")],
    statement: Annotated[str, typer.Option(help="What is true, in a sentence.")],
    by: Annotated[str, typer.Option(help="Who attests it, under whose name the public key is filed.")],
    key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="That person's private key (PEM).")],
    role: Annotated[str, typer.Option(help="In which role.")] = "",
    until: Annotated[
        str, typer.Option(metavar="DATE", help="The first day it no longer holds; a year by default.")
    ] = "",
) -> None:
    """Sign, with one's own key, what no program can decide; the next compliance report reads it."""
    settings = _choose(portfolio)
    from datetime import timedelta

    from pydantic import ValidationError

    from cde_domain.governance.attestations import Attestation, AttestationError
    from cde_resources.releases import ReleasesResource
    from cde_serving.attestations import SignedAttestation, write_attestation
    from cde_serving.signing import SignatureError, SigningKey

    name = settings.portfolio_name()
    attestable = [known.id for known in _rulebook().rules if known.attestable]
    if rule not in attestable:
        said = f"{rule} is no rule that a person may attest; these are: {', '.join(attestable)}"
        raise typer.BadParameter(said, param_hint="RULE")
    releases = ReleasesResource.of(settings, name)
    today = releases.now().date()
    stated = {"rule": rule, "name": by, "role": role, "statement": statement, "date": today}
    unfiled = ""
    try:
        private = SigningKey.read(key)
        unfiled = _unfiled(private.public, by, key, releases)
        attestation = SignedAttestation.of(
            Attestation.model_validate({**stated, "expires": until or today + timedelta(days=365)}),
            portfolio=name,
            key=private,
        )
        approvers, platform = releases.approvers(), releases.platform_keys()
        attestation.verify(portfolio=name, approvers=approvers, platform=platform, today=today)
    except ValidationError as error:
        problem = error.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, problem['loc']))} {problem['msg']}".strip()) from error
    except (AttestationError, SignatureError) as error:
        typer.echo(f"Not attested: {error}{unfiled}")
        raise typer.Exit(1) from error
    typer.echo(f"{by} attests {rule} for {name} until {attestation.expires}:")
    typer.echo(f"  {write_attestation(releases.store().attestations, attestation)}")
    typer.echo("Run train_and_release, or materialise compliance_report and what follows, for it to count.")


@app.command()
def rollback(
    portfolio: PortfolioArgument = None,
    to: Annotated[
        str | None, typer.Option(help="The digest of an earlier champion's bundle; by default the one before.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")] = "",
) -> None:
    """Make an earlier champion answer again: one ledger entry, which a running service follows within two seconds."""
    settings = _choose(portfolio)
    from cde_domain.release import BundleError
    from cde_resources.releases import ReleasesResource
    from cde_serving.ledger import LedgerConflictError, LedgerError
    from cde_serving.releases import RollbackError
    from cde_serving.signing import SignatureError

    name = settings.portfolio_name()
    releases = ReleasesResource.of(settings, name)
    try:
        entry = releases.store().roll_back(to, key=releases.signer(), by=_os_user(), reason=reason)
    except (RollbackError, BundleError, LedgerError, LedgerConflictError, SignatureError) as error:
        typer.echo(f"Not rolled back: {error}")
        raise typer.Exit(1) from error
    typer.echo(f"{name} is answered by {entry.bundle[:12]} again, no longer by {str(entry.previous)[:12]}")
    typer.echo(f"(entry {entry.sequence} of its ledger)")
    if version := entry.details.get("mlflow_version"):
        _follow_in_mlflow(settings, name, str(version))


PortfolioOption = Annotated[str | None, typer.Option("--portfolio", help="The portfolio, as for the other commands.")]


@experiment_app.command("start")
def start_experiment(
    name: Annotated[str, typer.Argument(help="Its name, which draws the customers and is used once.")],
    challenger: Annotated[
        str | None, typer.Option(help="A bundle that was promoted before, by digest, or `latest`: the challenger.")
    ] = None,
    weight: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share of customers it decides for.")] = 0.0,
    shadow: Annotated[
        list[str] | None, typer.Option(help="A bundle that decides without being answered; several may be named.")
    ] = None,
    portfolio: PortfolioOption = None,
) -> None:
    """Start an experiment; a challenger needs all that a promotion needs, a shadow signed evidence about its model."""
    settings = _choose(portfolio)
    from cde_assets.experiment_commands import start

    raise typer.Exit(start(settings, name, challenger, weight, shadow or [], by=_os_user()))


@experiment_app.command("weight")
def change_weight(
    weight: Annotated[float, typer.Argument(min=0.0, max=1.0, help="The share of customers, e.g. 0.25.")],
    portfolio: PortfolioOption = None,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "",
) -> None:
    """Let the challenger decide for another share of the customers; services follow within two seconds."""
    settings = _choose(portfolio)
    from cde_assets.experiment_commands import change_weight as change

    raise typer.Exit(change(settings, weight, by=_os_user(), reason=reason))


@experiment_app.command("stop")
def stop_experiment(
    portfolio: PortfolioOption = None, reason: Annotated[str, typer.Option(help="Why, for the log.")] = ""
) -> None:
    """End the experiment: the champion decides alone again."""
    settings = _choose(portfolio)
    from cde_assets.experiment_commands import stop

    raise typer.Exit(stop(settings, by=_os_user(), reason=reason))


@experiment_app.command("show")
def show_experiment(portfolio: PortfolioOption = None) -> None:
    """Show which experiment runs; exit status 1 if none does."""
    settings = _choose(portfolio)
    from cde_assets.experiment_commands import show

    raise typer.Exit(show(settings))


def _os_user() -> str:
    """The account that runs this process, as the system knows it: nothing here authenticates the person."""
    import pwd

    try:
        return f"os-user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # in a container an account needs no name
        return f"os-user:{os.getuid()}"


def _follow_in_mlflow(settings: Any, name: str, version: str) -> None:
    from mlflow.exceptions import MlflowException

    from cde_resources.mlflow import MlflowResource

    try:
        MlflowResource.of(settings, name).set_alias("champion", version)
    except MlflowException as error:  # the ledger decides what is served, the alias only shows it
        typer.echo(f"MLflow's alias champion could not follow to version {version}: {error}", err=True)
    else:
        typer.echo(f"MLflow's alias champion follows to version {version}.")

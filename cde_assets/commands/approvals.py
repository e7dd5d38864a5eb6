"""`cde approve` and `attest`: what a person signs with a key of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cde_assets.commands.common import PortfolioArgument, choose, read_rulebook, told_no

if TYPE_CHECKING:
    from cde_resources.releases import ReleasesResource
    from cde_serving.signing import VerifyKey

app = typer.Typer()


@app.command()
def approve(
    evidence: Annotated[str, typer.Option(help="The digest of the evidence pack.")],
    key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The approver's private key (PEM).")],
    name: Annotated[str, typer.Option(help="The approver, under whose name the public key is filed.")],
    portfolio: PortfolioArgument = None,
    valid_days: Annotated[int, typer.Option(min=1, max=365, help="How long the approval counts.")] = 30,
) -> None:
    """Sign an approval of one evidence pack with the approver's own key."""
    settings = choose(portfolio)
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
        raise told_no(f"Not approved: {error}{unfiled}") from error
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
    settings = choose(portfolio)
    from datetime import timedelta

    from pydantic import ValidationError

    from cde_domain.governance.attestations import Attestation, AttestationError
    from cde_resources.releases import ReleasesResource
    from cde_serving.attestations import SignedAttestation, write_attestation
    from cde_serving.signing import SignatureError, SigningKey

    name = settings.portfolio_name()
    attestable = [known.id for known in read_rulebook().rules if known.attestable]
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
        raise told_no(f"Not attested: {error}{unfiled}") from error
    typer.echo(f"{by} attests {rule} for {name} until {attestation.expires}:")
    typer.echo(f"  {write_attestation(releases.store().attestations, attestation)}")
    typer.echo("Run train_and_release, or materialise compliance_report and what follows, for it to count.")


def _unfiled(key: "VerifyKey", name: str, key_file: Path, releases: "ReleasesResource") -> str:
    """Where to file the public key of a person that no file holds yet; nothing for the platform's own key."""
    platform = releases.platform_keys()
    if key.id in releases.approvers().keys or (platform and key.id in platform.keys):
        return ""
    target = Path(releases.approver_keys) / f"{name}.pem"
    return f". If it is {name}'s, file the public key: openssl pkey -in {key_file} -pubout -out {target}"

"""The `cde` command. Exit status: 0 is yes, 1 is no, 2 is misuse."""

import typer

from cde_assets.commands import (
    alerts,
    approvals,
    decision_log,
    evidence,
    experiment,
    keys,
    loop,
    operation,
    rollback,
    run,
    simulation,
    traffic,
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Run the credit decision engine and ask it questions."
)
for subject in (
    run,
    evidence,
    decision_log,
    operation,
    approvals,
    rollback,
    experiment,
    simulation,
    keys,
    traffic,
    loop,
    alerts,
):  # as `--help` lists them
    app.add_typer(subject.app)

if __name__ == "__main__":
    app()

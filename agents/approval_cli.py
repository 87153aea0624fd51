"""The command `tutelage approve`, and how a run asks at the terminal."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.exits import Json, user_errors

if TYPE_CHECKING:
    from curriculum.rundir import RunDir


def approve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that waits for approval")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who approves")] = "",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is in the report")] = "",
    json_: Json = False,
) -> None:
    """Approve what a run waits for, a plan or the skill catalogue, as its file says it. Then resume the run."""
    with user_errors(json_):
        from agents.approval import approve_waiting

        made = approve_waiting(run, by, reason)
        typer.echo(f"{made.what} is approved; go on with: tutelage resume {run}", err=True)
        if json_:
            line = {"status": "approved", "run": str(run), "round": made.round, "file": str(made.file)}
            sys.stdout.write(json.dumps(line) + "\n")


def asked_here(directory: "RunDir", json_: bool) -> bool:
    """Asks the person at the terminal for what the run waits for; whether it was approved.

    Nobody is asked where no terminal is there to answer, or where a program reads the last line.
    """
    from rich.console import Console

    from agents.approval import ask, waiting

    what = waiting(directory)
    return what is not None and not json_ and sys.stdin.isatty() and ask(what, Console(highlight=False))

"""The commands that hand a round over to an auditor: `tutelage bundle`, and `tutelage verify`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agents.exits import Json, user_errors

DIFFERS = 1
"""Exit code of a bundle whose numbers are not what its records give."""


def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart-1")],
    round_: Annotated[
        int | None, typer.Option("--round", min=0, metavar="K", help="The last round in it; the last finished one")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="The file; RUN-round-K.zip beside the run")] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Put the adapters' files in, too")] = False,
    json_: Json = False,
) -> None:
    """Write the records of a run up to a round as one file: enough to audit every number of it."""
    with user_errors(json_):
        from agents.bundle import write_bundle

        file = write_bundle(run, round_, to, weights)
        typer.echo(
            f"{file}: {file.stat().st_size / 1e6:.1f} MB. Look at what you hand over: it has the run's questions"
        )
        typer.echo(f"audit it with: tutelage verify {file}")
        if json_:
            sys.stdout.write(json.dumps({"status": "ok", "run": str(run), "bundle": str(file)}) + "\n")


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file that `tutelage bundle` wrote")],
    json_: Json = False,
) -> None:
    """Make every number of a bundle again from its records, and run nothing in it. A difference exits with 1."""
    with user_errors(json_):
        from rich.console import Console

        from agents.bundle import verify_bundle
        from curriculum.audit import audit_terminal

        made = verify_bundle(bundle)
        Console(highlight=False).print(audit_terminal(made), soft_wrap=True)
        if json_:
            status = "differs" if made.differences else "ok"
            sys.stdout.write(json.dumps({"status": status, **made.model_dump(mode="json")}) + "\n")
        if made.differences:
            raise typer.Exit(DIFFERS)

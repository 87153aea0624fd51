"""The commands that take finished runs further: what others can load, and how two of them differ."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agents.exits import Json, user_errors

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder, such as runs/quickstart-1")]


def export(
    run: RunPath,
    to: Annotated[Path | None, typer.Option(help="The folder to make; RUN-export beside the run otherwise")] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Also write the base with the adapter merged into it")
    ] = False,
    json_: Json = False,
) -> None:
    """Write the accepted adapter, its training set, a model card and a cross-check where others can load them."""
    with user_errors(json_):
        from agents.export import export_run
        from agents.progress import ProgressPrinter

        progress = ProgressPrinter()
        folder, accepted = export_run(run, to, merged, progress.say)
        progress.say(f"{accepted.adapter.name} is in {folder}")
        if accepted.names_this_machine:
            progress.say("look before you publish: config.yaml or adapter_config.json names a folder of this machine")
        if json_:
            line = {"status": "ok", "run": str(run), "export": str(folder), "adapter": accepted.adapter.name}
            sys.stdout.write(json.dumps(line) + "\n")

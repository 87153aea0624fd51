"""The commands on runs that are there: what others can load, how two of them differ, and all of them in one page."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agents.exits import Json, user_errors

Side = Annotated[str, typer.Argument(help="A run's folder, or RUN:ROUND for the candidate of a round (0: the base)")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder, such as runs/quickstart-1")]


def export(
    run: RunPath,
    to: Annotated[Path | None, typer.Option(help="The folder to make; RUN-export beside the run otherwise")] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Also write the base with the adapter merged into it")
    ] = False,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Also write the final answers as logs for Inspect")
    ] = False,
    json_: Json = False,
) -> None:
    """Write the accepted adapter, its training set, a model card and a cross-check where others can load them."""
    with user_errors(json_):
        from agents.export import export_run
        from agents.progress import ProgressPrinter

        progress = ProgressPrinter()
        folder, accepted = export_run(run, to, merged, progress.say, inspect)
        progress.say(f"{accepted.adapter.name} is in {folder}")
        if accepted.names_this_machine:
            progress.say("look before you publish: config.yaml or adapter_config.json names a folder of this machine")
        if json_:
            line = {"status": "ok", "run": str(run), "export": str(folder), "adapter": accepted.adapter.name}
            sys.stdout.write(json.dumps(line) + "\n")


def compare(
    a: Side,
    b: Side,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of tables")] = False,
    json_: Json = False,
) -> None:
    """Compare what the adapters of two runs, or of two rounds, answered on the same items. Writes nothing."""
    with user_errors(json_):
        from rich.console import Console

        from agents.compare_runs import compare_runs
        from curriculum.run_comparison_text import comparison_markdown, comparison_terminal

        made = compare_runs(a, b)
        if markdown:
            sys.stdout.write(comparison_markdown(made))
        else:
            Console(highlight=False).print(comparison_terminal(made))
        if json_:
            sys.stdout.write(json.dumps({"status": "ok", **made.model_dump(mode="json")}) + "\n")


def index(
    folder: Annotated[Path, typer.Argument(metavar="RUNS", help="The folder that the runs are in")] = Path("runs"),
    json_: Json = False,
) -> None:
    """List all runs and benches of a folder, and write the list as RUNS/index.html. Runs are read, never changed."""
    with user_errors(json_):
        from rich.console import Console

        from agents.run_index import read_index
        from curriculum.errors import RunDirError
        from curriculum.run_index_views import render_html, render_terminal
        from curriculum.rundir import write_atomic

        if not folder.is_dir():
            raise RunDirError(f"{folder}: expected the folder that runs are in, as the config's runs_dir says")
        made, page = read_index(folder), folder / "index.html"
        write_atomic(page, render_html(made))
        console = Console(highlight=False)
        console.print(render_terminal(made))
        console.print(f"index: {page}", markup=False, soft_wrap=True)
        if json_:
            sys.stdout.write(json.dumps({"status": "ok", "page": str(page), **made.model_dump(mode="json")}) + "\n")

"""The command line: parse, load, call. Heavy imports stay inside the commands.

What a user can fix prints one message and exits with 2; a stop on request exits with 130 and says how to
go on. `--json` prints one machine-readable last line.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agents.approval_cli import approve, asked_here
from agents.bench_cli import bench
from agents.bundle_cli import bundle, verify
from agents.exits import INTERRUPTED, OVER_BUDGET, ConfigPath, Json, Set, graceful_stop, user_errors
from agents.results_cli import compare, export, index
from agents.teacher_cli import teacher_app

if TYPE_CHECKING:
    from agents.loop import State
    from curriculum.config import Config
    from curriculum.rundir import RunDir

app = typer.Typer(
    name="tutelage",
    help="Finds the skills a language model is missing and teaches exactly those.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at the data of a config.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(teacher_app, name="teacher")
app.command()(export)
app.command()(compare)
app.command()(index)
app.command()(bench)
app.command()(approve)
app.command()(bundle)
app.command()(verify)
Approve = Annotated[bool, typer.Option("--approve", help="Wait for a person after each plan, as plan.approve=true")]
Trust = Annotated[bool, typer.Option("--trust-grader", help="Run the grader function the run names without asking")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart-1")]


@app.command()
def run(
    config: ConfigPath,
    name: Annotated[
        str | None, typer.Option(help="The run's folder name; the config's name and a number otherwise")
    ] = None,
    approve: Approve = False,
    decisions: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Take over what persons decided in RUN where a plan is the same; else ask"),
    ] = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Start a run: examine, diagnose, teach and re-examine the student for the configured rounds."""
    with user_errors(json_):
        from agents.earlier_decisions import check_decisions
        from agents.session import check_keys, chosen_engine, create_run, remove_run
        from agents.tracking import check_trackers
        from curriculum.config import load_config
        from curriculum.errors import UserError
        from curriculum.rundir import DONE

        loaded = chosen_engine(load_config(config, _overrides(set_, approve or decisions is not None)))
        earlier = check_decisions(decisions) if decisions else None
        check_trackers(loaded)
        check_keys(loaded)
        directory = create_run(loaded, config, name, earlier)
        try:
            with directory:
                _go(directory, loaded, json_)
        except UserError:
            if not (directory.stage_path("prepare") / DONE).exists():  # no teacher was asked yet
                remove_run(directory)  # nothing was done yet: leave nothing half-written
            raise


@app.command()
def resume(
    run: RunPath,
    extend: Annotated[int | None, typer.Option(min=1, metavar="N", help="Do N rounds more than configured")] = None,
    approve: Approve = False,
    set_: Set = None,
    trust_grader: Trust = False,
    json_: Json = False,
) -> None:
    """Go on with a run where it stopped. --extend adds rounds; --set may change operational keys."""
    with user_errors(json_):
        from agents.method_checks import check_methods
        from agents.session import check_grader_trusted, check_keys, extended, open_run, record_changes
        from agents.tracking import check_trackers

        directory, config = open_run(run, _overrides(set_, approve))
        check_trackers(config)
        check_methods(config)
        check_keys(config)
        check_grader_trusted(directory, config, trust_grader)
        with directory:
            if extend:
                config = extended(directory, config, extend)
            record_changes(run, config)
            _go(directory, config, json_)


@app.command()
def fork(
    run: RunPath,
    round_: Annotated[int, typer.Option("--round", min=0, help="The last round to take over; 0 is the baseline")],
    name: Annotated[
        str | None, typer.Option(help="The new run's folder name; the old one's with a number otherwise")
    ] = None,
    approve: Approve = False,
    ask_anew: Annotated[
        bool, typer.Option("--ask-anew", help="Take over no decision on a plan that the old run's rounds after K had")
    ] = False,
    set_: Set = None,
    trust_grader: Trust = False,
    json_: Json = False,
) -> None:
    """Start a run from a finished round of another. --set may change plan, training, gate and seed."""
    with user_errors(json_):
        from agents.fork import fork_run
        from agents.session import check_grader_trusted, check_keys
        from agents.tracking import check_trackers
        from curriculum.rundir import RunDir

        def check(config: "Config") -> None:
            check_trackers(config)
            check_keys(config)
            check_grader_trusted(RunDir(run), config, trust_grader)

        directory, config = fork_run(run, round_, name, _overrides(set_, approve), check, ask_anew)
        with directory:
            _go(directory, config, json_)


@app.command()
def report(
    run: RunPath,
    round_: Annotated[int | None, typer.Option("--round", min=0, help="Show one round only")] = None,
    json_: Json = False,
) -> None:
    """Show a run's report in the terminal and write its pages anew."""
    with user_errors(json_):
        from agents.reporting import print_report, write_pages
        from agents.session import open_run

        directory, config = open_run(run, only_read=True)
        made = write_pages(directory, config)
        print_report(directory, made, round_)
        if json_:
            _json_line(directory, made.status, len(made.rounds) - 1)


@app.command()
def forecast(config: ConfigPath, set_: Set = None) -> None:
    """Print what a run will take, and what its gate can see. Spends nothing."""
    with user_errors(False):
        from agents.forecast import print_forecast
        from agents.method_checks import check_methods
        from curriculum.config import load_config

        loaded = load_config(config, set_ or ())
        check_methods(loaded)
        print_forecast(loaded)


@data_app.command("check")
def data_check(config: ConfigPath, set_: Set = None, json_: Json = False) -> None:
    """Show what a run would make of its data, ten rows as the student reads them included. Spends nothing."""
    with user_errors(json_):
        from rich.console import Console

        from agents.data_check import check_data, print_check
        from agents.progress import ProgressPrinter
        from curriculum.config import load_config

        made = check_data(load_config(config, set_ or ()), ProgressPrinter())
        print_check(made, Console(highlight=False))
        if json_:
            sys.stdout.write(json.dumps({"status": "ok", **made.model_dump(mode="json")}) + "\n")


@app.command()
def schema(
    what: Annotated[Literal["report", "bench", "config"], typer.Argument(help="report, bench or config")],
) -> None:
    """Print the JSON schema of `report.json`, of `bench.json` or of a config."""
    from pydantic import BaseModel

    from curriculum.bench_records import BenchReport
    from curriculum.config import Config
    from curriculum.report import RunReport

    models: dict[str, type[BaseModel]] = {"report": RunReport, "bench": BenchReport, "config": Config}
    model = models[what]
    typer.echo(json.dumps(model.model_json_schema(), indent=1, sort_keys=True))


def _overrides(set_: list[str] | None, approve: bool) -> list[str]:
    return [*(set_ or ()), *(["plan.approve=true"] if approve else [])]


def main() -> None:
    """The `tutelage` command."""
    app()


def _go(directory: "RunDir", config: "Config", json_: bool) -> None:
    from langgraph.runtime import RunControl

    from agents.approval import how_to_go_on, waiting
    from agents.graph import run_graph
    from agents.progress import ProgressPrinter
    from agents.reporting import print_report, write_pages
    from agents.session import open_loop
    from agents.tracking import track
    from curriculum.errors import BudgetReached, StopRequested
    from curriculum.rundir import finished_rounds

    progress = ProgressPrinter()
    control = RunControl()
    progress.say(f"run {directory.path}")
    status = "finished"
    state: State = {}
    try:
        with open_loop(directory, config, progress) as loop:
            decided = True
            while decided:
                with graceful_stop(loop, control.request_drain):
                    state = run_graph(loop, control)
                decided = bool(state.get("waiting_for")) and asked_here(directory, json_)
    except BudgetReached as reached:
        status = "over_budget"
        raise_ = "".join(f" --set teacher.budget.{name}=…" for name in reached.limits)
        progress.say(f"stopped at the budget: {reached}\ngo on with: tutelage resume {directory.path}{raise_}")
    except StopRequested as stop:
        status = "interrupted"
        progress.say(str(stop))
    if state.get("waiting_for") and (what := waiting(directory)):
        status = "waiting"
        progress.say(how_to_go_on(what))
    rounds = 0
    if finished_rounds(directory):
        made = write_pages(directory, config)
        track(directory, config, progress.say)
        print_report(directory, made, None)
        rounds = len(made.rounds) - 1
        status = made.status if status == "finished" else status
    if json_:
        _json_line(directory, status, rounds)
    if status in ("interrupted", "over_budget"):
        raise typer.Exit(INTERRUPTED if status == "interrupted" else OVER_BUDGET)


def _json_line(directory: "RunDir", status: str, rounds: int) -> None:
    line = {
        "run": str(directory.path),
        "status": status,
        "rounds": rounds,
        "report": str(directory.path / "report.html"),
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

"""The command `tutelage bench`."""

import json
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from agents.exits import INTERRUPTED, ConfigPath, Json, Set, budget_errors, graceful_stop, user_errors


def bench(
    config: ConfigPath,
    arms: Annotated[
        str, typer.Option(metavar="A,B", help="Strategies to compare; uniform and uniform_again always are")
    ] = "stat_sel,ega",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each; 2 and more give intervals")] = 3,
    budgets: Annotated[
        str, typer.Option(metavar="X,Y", help="Shares of plan.rows_per_round's tokens; each strategy trains at each")
    ] = "1",
    name: Annotated[str | None, typer.Option(help="Folder in runs_dir; bench- and the config's name otherwise")] = None,
    forecast: Annotated[bool, typer.Option("--forecast", help="Say what it will take, and do nothing")] = False,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Train one student by several strategies on equal tokens and compare them. The same command goes on."""
    with user_errors(json_), budget_errors(json_):
        from agents.bench import Bench, check_bench, log_asked, open_bench, run_bench
        from agents.bench_forecast import bench_forecast, forecast_words
        from agents.method_checks import check_methods
        from agents.progress import ProgressPrinter
        from agents.session import check_keys, chosen_engine, open_loop
        from curriculum.bench_budgets import parse_budgets
        from curriculum.bench_records import BenchReport
        from curriculum.config import load_config
        from curriculum.errors import StopRequested
        from curriculum.strategies import parse_strategies

        loaded = chosen_engine(load_config(config, set_ or ()))
        wanted = Bench(parse_strategies(arms), seeds, parse_budgets(budgets))
        check_bench(loaded, wanted)
        check_methods(loaded)
        check_keys(loaded)
        progress = ProgressPrinter()
        called = name or f"bench-{config.stem}"
        for line in forecast_words(loaded, wanted, bench_forecast(loaded, wanted, loaded.runs_dir / called)):
            progress.say(line)
        if forecast:
            return
        directory = open_bench(loaded, called)
        page = str(directory.path / "bench.html")
        told: dict[str, object] = {"run": str(directory.path), "trainings": len(wanted.trainings), "report": page}
        try:
            with directory, ExitStack() as stack:
                opened = (open_loop(directory, loaded, progress) for _ in range(loaded.bench.at_once))
                loop, *helpers = [stack.enter_context(one) for one in opened]
                stack.enter_context(graceful_stop(loop))
                log_asked(directory, wanted)
                made = run_bench(loop, wanted, helpers)
        except StopRequested:
            progress.say("stopped on request: the same command goes on")
            if json_:
                sys.stdout.write(json.dumps(told | {"status": "interrupted"}) + "\n")
            raise typer.Exit(INTERRUPTED) from None
        if isinstance(made, BenchReport):
            _print(made, page)
        else:
            progress.say(
                f"waiting for approval of the skill catalogue: edit {made} if you want; then "
                f"tutelage approve {directory.path} --by NAME --reason TEXT, and the same command goes on"
            )
        if json_:
            status = made.status if isinstance(made, BenchReport) else "waiting"
            sys.stdout.write(json.dumps(told | {"status": status}) + "\n")


def _print(made: object, page: str) -> None:
    from rich.console import Console

    from curriculum.bench_records import BenchReport
    from curriculum.bench_views import render_terminal
    from curriculum.report_text import safe_text

    assert isinstance(made, BenchReport)
    console = Console(highlight=False)
    console.print(render_terminal(made))
    console.print(safe_text(f"report: {page}"), soft_wrap=True)

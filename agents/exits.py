"""What the commands share: their common options, and how they end.

What a user can fix prints one message and exits with 2; a stop on request exits with 130, one at the budget with 3.
"""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agents.loop import Loop

Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key: a.b=c")]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable last line")]
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as runs/configs/quickstart.yaml")]

INTERRUPTED = 130
"""Exit code of a run that was asked to stop."""
OVER_BUDGET = 3
"""Exit code of a run that stopped at a limit of `teacher.budget`."""


@contextmanager
def budget_errors(json_: bool) -> Iterator[None]:
    """A measuring that reached a limit says so and exits with 3; what it bought is kept."""
    from curriculum.errors import BudgetReached

    try:
        yield
    except BudgetReached as reached:
        typer.echo(
            f"stopped at the budget or at what was announced: {reached}\n"
            "what was bought is kept: the same command goes on",
            err=True,
        )
        if json_:
            typer.echo(json.dumps({"status": "over_budget", "error": str(reached)}))
        raise typer.Exit(OVER_BUDGET) from None


@contextmanager
def user_errors(json_: bool) -> Iterator[None]:
    """Prints what a user can fix without a traceback; exit code 2."""
    from curriculum.errors import TutelageError, UserError, disk_message, is_disk_fault

    try:
        yield
    except (TutelageError, OSError) as error:
        if isinstance(error, OSError) and not is_disk_fault(error):
            raise
        message = disk_message(error) if isinstance(error, OSError) else str(error)
        typer.echo(f"error: {message}", err=True)
        if json_:
            typer.echo(json.dumps({"run": None, "status": "error", "rounds": None, "report": None, "error": message}))
        raise typer.Exit(2 if isinstance(error, UserError | OSError) else 1) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def graceful_stop(loop: "Loop", also: Callable[[str], object] = lambda name: None) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks for a stop at the next safe point; the second ends at once.

    `also` is called with the signal's name.
    """

    def ask(number: int, frame: object) -> None:
        loop.stopping.set()
        also(signal.Signals(number).name)
        for each in before:
            signal.signal(each, before[each])
        loop.say("stopping at the next safe point; once more to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

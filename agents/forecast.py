"""What a run will take and what its gate can see, from the config alone: nothing is loaded or spent.

Times are a range around what was measured with the quickstart's student on two CPU cores (see
runs/LOG.md); another student or machine moves them.
"""

from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from curriculum.config import Config
from curriculum.data_config import FileData, GeneratorData
from curriculum.gate import detectable_gain, false_accept_rate

ANSWERS_PER_SECOND = (6.0, 20.0)
"""Slow and fast: the base rambles to its token limit, a taught student stops early."""
ROWS_PER_SECOND = (4.0, 10.0)
"""Slow and fast: rows of about 140 and of about 60 tokens."""
START_SECONDS = (5.0, 10.0)
"""To start one worker: imports and loading the model."""
DISCORDANT_SHARE = 0.2
"""Share of gate items on which two adapters disagree, as assumed for the gate's power."""
HOPELESS_GAIN = 0.15
"""A gate that cannot see a gain of 15 points is warned of."""


class Forecast(NamedTuple):
    """Counts over the whole run; minutes as (least, most)."""

    answers: int
    training_rows: int
    """Rows that go through training, all rounds and epochs; the most there can be."""
    minutes: tuple[float, float]
    detectable_gain: float | None
    false_accept_rate: float


def forecast(config: Config) -> Forecast:
    """Counts what the configured rounds will do when every adapter is accepted: the dearest course."""
    splits, rounds = config.data.splits, config.rounds
    evaluations = rounds + (rounds + 1) + 3  # probe each round, gate each round and once for the base, three final arms
    answers = rounds * splits.probe + (rounds + 1) * splits.gate + 3 * splits.final
    replay = [min((r - 1) * config.plan.rows_per_round, _cap(config)) for r in range(1, rounds + 1)]
    rows = config.training.epochs * (rounds * config.plan.rows_per_round + sum(replay))
    least = answers / ANSWERS_PER_SECOND[1] + rows / ROWS_PER_SECOND[1] + START_SECONDS[0] * (evaluations + rounds)
    most = answers / ANSWERS_PER_SECOND[0] + rows / ROWS_PER_SECOND[0] + START_SECONDS[1] * (evaluations + rounds)
    gate = (splits.gate, DISCORDANT_SHARE, config.gate.alpha, config.gate.retrain_sd)
    return Forecast(answers, rows, (least / 60, most / 60), detectable_gain(*gate), false_accept_rate(*gate))


def _cap(config: Config) -> int:
    replay = config.plan.replay_rows
    return config.rounds * config.plan.rows_per_round if replay is None else replay


def print_forecast(config: Config) -> None:
    """Prints the forecast as a table, with warnings and with what leaves the machine."""
    made = forecast(config)
    console = Console()
    table = Table(title="Forecast", show_header=False)
    table.add_row("rounds", str(config.rounds))
    table.add_row("student answers", f"{made.answers:,}")
    table.add_row("rows through training", f"at most {made.training_rows:,} (all epochs, replay included)")
    table.add_row("time on 2 CPU cores", f"{made.minutes[0]:.0f} to {made.minutes[1]:.0f} minutes")
    table.add_row("teacher calls", "0: the offline teacher calls nobody")
    table.add_row("money", "0")
    gain = made.detectable_gain
    table.add_row(
        "smallest gain the gate sees",
        ("none" if gain is None else f"{100 * gain:.1f} points")
        + f" (80 % power, {config.data.splits.gate} gate items, {DISCORDANT_SHARE:.0%} discordant)",
    )
    table.add_row("false accepts", f"{made.false_accept_rate:.1%} of same-recipe retrains with another seed")
    source = "generated here" if isinstance(config.data, GeneratorData) else "read from the given file"
    leaves = f"nothing: the data are {source}, the student runs here"
    if isinstance(config.data, FileData) and config.data.hub:
        leaves = f"the name {config.data.hub.name}, to the Hub its rows come from; the student runs here"
    table.add_row("leaves this machine", leaves)
    console.print(table)
    if gain is None or gain > HOPELESS_GAIN:
        console.print(
            f"[bold]Warning:[/bold] with {config.data.splits.gate} gate items only gains above {HOPELESS_GAIN:.0%} are "
            "seen; smaller ones will be rolled back. Raise data.splits.gate."
        )

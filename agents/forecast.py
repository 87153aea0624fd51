"""What a run will take and what its gate can see, from the config alone: nothing is loaded or spent.

Only an LLM teacher's share is counted from the data as well (`teacher_cost`), where they are on this machine.
Times are a range around what was measured with the quickstart's student on two CPU cores (see
runs/LOG.md); another student or machine moves them.
"""

from math import ceil, floor
from shutil import disk_usage
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents import footprint
from agents.merging import rank_limit
from agents.method_forecast import MethodWork, minutes, plus, pool_items, probe_answers, run_methods, work_words
from curriculum.addresses import is_loopback
from curriculum.config import Config
from curriculum.data_config import FileSource
from curriculum.gate_odds import detectable_gain, false_accept_rate
from curriculum.looks import next_look
from curriculum.merging import merging_answers
from curriculum.report_text import add_row, narrow_table, safe_text
from curriculum.teacher_config import Role
from curriculum.teacher_records import TeacherForecast
from curriculum.teacher_words import range_words, short_of, total_words
from student.base_model import SMOLLM2, find_base, linear_sizes
from student.memory_estimate import adapter_count

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


SHOWN: dict[Role, str] = {
    "skills": "a sample of pool questions",
    "label": "questions of all splits, and of new rows",
    "diagnose": "failed probe questions with the student's answers",
    "write": "pool questions with their solutions and answers",
    "solve": "new questions, or hard ones of the pool",
    "plan": "counts of the probe and of earlier rounds, with the names of skills",
    "judge": "questions, the student's answers and the gold answers, of held-out items too",
}
"""What a request of a teacher's role has of the data; only the judge sees the gold answer of a held-out item."""
BYTES_PER_ANSWER = 600
"""Of an answer and its grade; measured with the quickstart: 560."""
BYTES_PER_EXAMPLE = 1500
"""Of an example, its label, and its uses as a row."""
SMOLLM2_LINEAR_SUM = 305_280
"""Σ (inputs + outputs) over SmolLM2-135M's linear layers, for when it is not converted yet."""
SMOLLM2_BYTES = 272_000_000
"""What its conversion writes into the user's cache."""


class Forecast(NamedTuple):
    """Counts over the whole run; minutes as (least, most)."""

    answers: int
    training_rows: int
    """Rows that go through training, all rounds and epochs; the most there can be."""
    minutes: tuple[float, float]
    detectable_gain: float | None
    false_accept_rate: float
    disk_bytes: int | None
    """The most the run's folder takes, which is at its end: nothing but journals is deleted. `None` while the base
    is not on this machine, for its adapters' size is not known."""
    cache_bytes: int
    """What the base will take in the user's cache beyond that."""
    methods: tuple[MethodWork, ...]
    """What the config's methods add; the counts and minutes above have it."""


def forecast(config: Config) -> Forecast:
    """Counts what the configured rounds will do when every adapter is accepted: the dearest course."""
    splits, rounds = config.data.splits, config.rounds
    # Probe each round, gate each round and once for the base, three arms of the final split and of each extra set.
    evaluations = rounds + (rounds + 1) + 3 * (1 + len(config.extra))
    answers = probe_answers(config) + (rounds + 1) * splits.gate + 3 * splits.final + _extra_answers(config)
    evaluations += (rounds - 1) * len(config.retention_sets)
    controls = {"none": 0, "last_round": 1, "every_round": rounds}[config.control]
    if controls:  # at the end the last control and, were it rolled back, its candidate answer the final split, too
        answers += controls * splits.gate + 2 * splits.final
        evaluations += controls + 2
    merging = [_merging_answers(config, round_) for round_ in range(1, rounds + 1)]
    answers += sum(merging)
    evaluations += sum(merging) // max(1, splits.probe)
    answers += (rounds + controls) * config.plan.own_answers(config.plan.rows_per_round - config.plan.written_rows)
    replay = [min((r - 1) * config.plan.rows_per_round, _cap(config)) for r in range(1, rounds + 1)]
    trainings = [config.plan.rows_per_round + again for again in replay]
    rows = config.training.epochs * (sum(trainings) + sum(trainings[rounds - controls :]))
    loop = MethodWork("the loop itself", "", answers, (rows, rows), evaluations + rounds + controls)
    methods = run_methods(config, trainings, trainings[rounds - controls :])
    took = [method_minutes(work) or (0.0, 0.0) for work in (loop, *methods)]
    answers += sum(work.answers for work in methods)
    level = next_look(1, rounds, config.gate, ()).level
    gate = (splits.gate, DISCORDANT_SHARE, level, config.gate.retrain_sd)
    sizes = detectable_gain(*gate), false_accept_rate(*gate)
    disk = _disk_bytes(config, answers, rounds + controls)
    cache = SMOLLM2_BYTES if config.student.base == SMOLLM2 and find_base(SMOLLM2) is None else 0
    return Forecast(answers, rows, plus(*took), *sizes, disk, cache, tuple(methods))


def method_minutes(work: MethodWork) -> tuple[float, float] | None:
    """What a method takes at the quickstart's speeds; none where that cannot be known."""
    return minutes(work, ANSWERS_PER_SECOND, ROWS_PER_SECOND, START_SECONDS)


def adapter_bytes(config: Config) -> int | None:
    """One adapter's float32 weights: 4 · rank · Σ (inputs + outputs) over the linear layers of the base."""
    folder = find_base(config.student.base)
    if config.student.engine == "fake":
        return 0
    if folder is not None:
        return 4 * config.training.rank * sum(map(sum, linear_sizes(folder)))
    if config.student.base == SMOLLM2:
        return 4 * config.training.rank * SMOLLM2_LINEAR_SUM
    sizes = footprint.base_sizes(config)
    return None if sizes is None else 4 * adapter_count(sizes, config.training.rank)


def _disk_bytes(config: Config, answers: int, adapters: int) -> int | None:
    """Every adapter stays, rolled back or not, and for a while what is tried of it after its training; none is there
    twice, for a finished draft is renamed.
    """
    adapter, splits = adapter_bytes(config), config.data.splits
    if adapter is None:
        return None
    pool = pool_items(config) or 0
    held_out = splits.probe + splits.gate + splits.final + _extra_items(config)
    examples = held_out + pool + adapters * config.plan.rows_per_round
    # One split's journal is there beside its answers: at most the largest one's.
    journal = max(splits.final, *(source.items for source in config.extra.values())) if config.extra else splits.final
    texts = BYTES_PER_ANSWER * (answers + journal) + BYTES_PER_EXAMPLE * examples
    return (adapters + _merged_adapters(config)) * adapter + texts


def leaving(config: Config) -> list[str]:
    """What leaves the machine, and to whom: a line each. Addresses on this machine are no leaving."""
    lines = []
    names = {s.hub.name for s in config.sources if isinstance(s, FileSource) and s.hub}
    if names:
        lines.append(f"the names {', '.join(sorted(names))}, to the Hub their rows come from")
    for url in config.student.vllm.urls:
        if not is_loopback(url):
            pool = "pool questions with solutions" if config.plan.targets == "own" else "the pool's few-shot examples"
            lines.append(f"questions of probe, gate, final and extra sets, and {pool}, to {url}")
    reward = config.student.reward
    if reward is not None and reward.base_url is not None and not is_loopback(reward.base_url):
        lines.append(f"probe questions with the student's answers, to {reward.base_url} (student.reward)")
    for endpoint in config.endpoints:
        shown = _shown(config, endpoint.role)
        if shown and not is_loopback(endpoint.base_url):
            lines.append(f"{shown}, to {endpoint.base_url} ({endpoint.role})")
    return lines or ["nothing"]


def _shown(config: Config, role: Role) -> str:
    """What a role is shown; empty where it is not asked."""
    writes = config.plan.written_rows > 0
    if role == "skills" and config.teacher.catalogue.source == "data":
        return ""
    if role == "label" and config.teacher.labels == "data":
        return "new questions" if writes else ""
    if role == "solve":
        return SHOWN[role] if writes or config.plan.solves else ""
    return "" if role == "write" and not writes else SHOWN[role]


def _merging_answers(config: Config, round_: int) -> int:
    """Probe answers that choose after a round's training; and the trained adapter's to the gate, beside a control's."""
    lines, soup = config.training.lines or (), config.training.soup
    controlled = config.control == "every_round" or (config.control == "last_round" and round_ == config.rounds)
    gate = config.data.splits.gate if controlled and (lines or soup) else 0
    return gate + merging_answers(len(lines), soup, round_, config.data.splits.probe)


def _merged_adapters(config: Config) -> int:
    """Adapters' weights, in those of a trained one, that merging adds at most; what is tried in the last round, too."""
    tried, rounds = max(0, len(config.training.lines or ()) - 1), config.rounds
    if not config.training.soup:
        return rounds * bool(tried) + tried
    limit = rank_limit(config)
    sizes = [r if limit is None else min(r, ceil(limit / config.training.rank)) for r in range(1, rounds + 1)]
    return sum(sizes) + tried + (rounds - 1) * sizes[-1]


def _extra_answers(config: Config) -> int:
    """Three arms at the end; those of the retention set are also answered by the candidates of earlier rounds."""
    retained = sum(config.extra[name].items for name in config.retention_sets)
    return 3 * _extra_items(config) + (config.rounds - 1) * retained


def _extra_items(config: Config) -> int:
    return sum(source.items for source in config.extra.values())


def _cap(config: Config) -> int:
    replay = config.plan.replay_rows
    return config.rounds * config.plan.rows_per_round if replay is None else replay


def print_forecast(config: Config) -> None:
    """Prints the forecast as a table, with warnings and with what leaves the machine."""
    made = forecast(config)
    console = Console()
    table = Table(title="Forecast", show_header=False)
    table.add_row("rounds", str(config.rounds))
    extra = f", at most {_extra_answers(config):,} of them to extra sets" if config.extra else ""
    table.add_row("student answers", f"{made.answers:,}{extra}")
    controls = "" if config.control == "none" else ", the control's too"
    table.add_row("rows through training", f"at most {made.training_rows:,} (all epochs, replay included{controls})")
    waits = "" if config.teacher.kind == "offline" else ", the teacher's not counted"
    known = config.student.base in (SMOLLM2, "fake")
    for work in made.methods:
        table.add_row(work.what, Text(work_words(work, method_minutes(work) if known else None)))
    if known:
        waits += "".join(f"; without {work.what}" for work in made.methods if work.unknown)
        table.add_row("time on 2 CPU cores", f"{floor(made.minutes[0])} to {ceil(made.minutes[1])} minutes{waits}")
    else:
        table.add_row("time", f"unknown: measured with {SMOLLM2} only, on two CPU cores")
    disk = "unknown until the base is on this machine" if made.disk_bytes is None else _megabytes(made.disk_bytes)
    cache = f", and {_megabytes(made.cache_bytes)} for the base in your cache" if made.cache_bytes else ""
    free = _megabytes(_free_bytes(config))
    table.add_row("disk at the peak", f"{disk}, adapters of all rounds included{cache}; {free} free")
    teacher = _teacher(config)
    if teacher is None:
        table.add_row("teacher calls", "0: the offline teacher calls nobody")
        table.add_row("money", "0")
    else:
        table.add_row("teacher", Text(teacher if isinstance(teacher, str) else total_words(teacher)))
    gain = made.detectable_gain
    table.add_row(
        "smallest gain the gate sees",
        ("none" if gain is None else f"{100 * gain:.1f} points")
        + f" (80 % power, {config.data.splits.gate} gate items, {DISCORDANT_SHARE:.0%} discordant)",
    )
    table.add_row(
        "false accepts", f"{made.false_accept_rate:.1%} of same-recipe retrains with another seed, each round"
    )
    table.add_row("leaves this machine", Text("\n".join(leaving(config))))
    memory = footprint.footprint(config)
    for what, text in footprint.rows(config, memory):
        table.add_row(what, text)
    if config.forecast.published:
        table.add_row("published by others, not measured here", Text("\n".join(config.forecast.published)))
    console.print(table)
    short = []
    if teacher is not None and not isinstance(teacher, str):
        _print_teacher(teacher, console)
        short = short_of(config.teacher.budget, teacher)
    for what, command in footprint.commands(config):
        console.print(Text(f"To {what}: {command}"), soft_wrap=True)
    for warning in warnings(config, made) + footprint.warnings(config, memory) + short:
        console.print("[bold]Warning:[/bold]", Text(warning))


def _teacher(config: Config) -> TeacherForecast | str | None:
    if config.teacher.kind == "offline":
        return None
    from agents.teacher_cost import config_forecast  # and with it the client, which an offline run does not need

    return config_forecast(config)


def _print_teacher(made: TeacherForecast, console: Console) -> None:
    heads = ["role", "requests", "prompt", "completion", "cost", "minutes", "model"]
    table = narrow_table("The teacher, forecast: least and most", heads)
    for role in made.roles:
        ends = (role.requests, role.prompt_tokens, role.completion_tokens, role.money, role.minutes)
        add_row(table, [role.role, *map(range_words, ends), role.model])
    console.print(table)
    for sentence in made.basis:
        console.print(safe_text(sentence), soft_wrap=True)


def warnings(config: Config, made: Forecast) -> list[str]:
    """What a person should know before the run begins."""
    found = []
    if made.detectable_gain is None or made.detectable_gain > HOPELESS_GAIN:
        found.append(
            f"with {config.data.splits.gate} gate items only gains above {HOPELESS_GAIN:.0%} are seen; smaller ones "
            "will be rolled back. Raise data.splits.gate."
        )
    if (made.disk_bytes or 0) + made.cache_bytes > _free_bytes(config):
        found.append("the disk has too little space for that. Free some, or move runs_dir.")
    return found


def _free_bytes(config: Config) -> int:
    folder = config.runs_dir.absolute()
    return disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"

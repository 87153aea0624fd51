"""What ledgers say of models: tokens for a byte, tokens of a reply, how long requests took.

Earlier runs' ledgers make a forecast narrower; a run's own says for how long each role was asked.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

from agents.ledger import LEDGER
from curriculum.config import Config, load_config
from curriculum.errors import UserError
from curriculum.report import RoleTiming
from curriculum.round_records import Adapter
from curriculum.rundir import TIMING, read_journal, read_json, read_record
from curriculum.teacher_config import ROLES, Role, TeacherConfig
from curriculum.teacher_records import CallEvent

FORECAST = Path("teacher", "forecast.json")
"""In a run's folder: not canonical, for it depends on what other runs recorded."""
MOST_RUNS = 5
"""The newest runs with a ledger are read."""
LEAST_REPLIES = 10
"""Fewer say nothing of a role."""
TAIL = 0.1
Range = tuple[float, float]


class Usage(NamedTuple):
    """One role's recorded replies: ranges from the 10th to the 90th percentile, widened to hold the mean."""

    replies: int
    runs: tuple[str, ...]
    tokens_per_byte: Range
    """Prompt tokens for each byte of `upper_bound`, the limit of the reply not counted."""
    completion_tokens: Range
    """Of a reply."""
    seconds: Range | None
    """From a request to its reply; none where nothing was recorded at this address."""


class Recorded(NamedTuple):
    """What was found, and what could not be read."""

    usage: dict[Role, Usage]
    unread: tuple[str, ...]


class _Seen(NamedTuple):
    run: str
    tokens_per_byte: float
    completion_tokens: float
    seconds: float | None


def recorded_usage(config: Config) -> Recorded:
    """The usage that the newest runs of `runs_dir` recorded for the models of this config, asked in the same way."""
    ledgers = [p for p in config.runs_dir.glob(f"*/{LEDGER}") if not p.parents[1].name.startswith(".")]
    seen: dict[Role, list[_Seen]] = defaultdict(list)
    unread = []
    for path in sorted(ledgers, key=lambda p: (-p.stat().st_mtime, p))[:MOST_RUNS]:
        run = path.parents[1]
        try:
            then = load_config(run / "config.yaml").teacher
            for role, one in _replies(read_journal(path, CallEvent), run.name, config.teacher, then):
                seen[role].append(one)
        except UserError:
            unread.append(run.name)
    return Recorded({role: _usage(of) for role, of in seen.items() if len(of) >= LEAST_REPLIES}, tuple(unread))


def _replies(
    events: Sequence[CallEvent], run: str, now: TeacherConfig, then: TeacherConfig
) -> Iterator[tuple[Role, _Seen]]:
    """The replies of the roles that are still asked as they were, and whose server said what they cost."""
    if then.kind == "offline":
        return
    alike = {role for role in ROLES if _way(now, role) == _way(then, role)}
    if now.second_judge or then.second_judge:
        alike.discard("judge")  # the ledger does not say which of two judges replied
    near = {role for role in alike if now.endpoint(role).base_url == then.endpoint(role).base_url}
    intents = {e.number: e for e in events if e.event == "intent"}
    for event in events:
        reply, intent = event.reply, intents.get(event.number)
        if reply is None or intent is None or event.role not in alike:
            continue
        size = intent.tokens - then.endpoint(event.role).max_tokens
        if size <= 0 or reply.prompt_tokens is None or reply.completion_tokens is None:
            continue
        timed = event.role in near and event.at is not None and intent.at is not None
        seconds = max(0.0, (event.at or 0.0) - (intent.at or 0.0)) if timed else None
        yield event.role, _Seen(run, reply.prompt_tokens / size, reply.completion_tokens, seconds)


def _way(teacher: TeacherConfig, role: Role) -> tuple[object, ...]:
    """What of a role's settings moves the size of its requests and replies."""
    endpoint = teacher.endpoint(role)
    rows = teacher.rows_per_call if role == "label" else None
    return endpoint.model, endpoint.structured, endpoint.max_tokens, endpoint.extra_body, rows


def _usage(seen: Sequence[_Seen]) -> Usage:
    times = [one.seconds for one in seen if one.seconds is not None]
    return Usage(
        replies=len(seen),
        runs=tuple(sorted({one.run for one in seen})),
        tokens_per_byte=_range([one.tokens_per_byte for one in seen]),
        completion_tokens=_range([one.completion_tokens for one in seen]),
        seconds=_range(times) if len(times) >= LEAST_REPLIES else None,
    )


def _range(values: Sequence[float]) -> Range:
    ordered, mean = sorted(values), sum(values) / len(values)
    last = len(ordered) - 1
    return min(ordered[int(TAIL * last)], mean), max(ordered[ceil((1 - TAIL) * last)], mean)


def role_timings(run: Path) -> tuple[RoleTiming, ...]:
    """For how long at least one request of each role was under way, by the run's ledger."""
    spans: dict[Role, list[tuple[float, float]]] = defaultdict(list)
    began: dict[int, float] = {}
    for event in read_journal(run / LEDGER, CallEvent):
        if event.at is None or event.event == "fault":
            continue
        if event.event == "intent":
            began[event.number] = event.at
        elif event.number in began:
            spans[event.role].append((began[event.number], event.at))
    return tuple(RoleTiming(role=role, seconds=_union(spans[role])) for role in ROLES if role in spans)


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """The length of all spans together, what they share counted once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return round(total, 1)


def count_lines(path: Path) -> int:
    """Lines of a file that ends with one."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def rows_per_second(stages: Iterable[Path], epochs: Callable[[int], int]) -> tuple[float, float] | None:
    """Rows through training a second, slow and fast, without what it took to weigh them; none where none was timed.

    Args:
        stages: folders of trainings, finished or not.
        epochs: round → how often its rows are taught.
    """
    measured = []
    for stage in stages:
        record, timing = stage / "adapter.json", stage / TIMING
        spent = read_json(timing) if record.exists() and timing.exists() else {}
        seconds = spent.get("seconds", 0.0) - spent.get("scoring_seconds", 0.0)  # a method's own, counted apart
        if seconds > 0:
            made = read_record(record, Adapter)
            measured.append(made.rows * epochs(made.round) / seconds)
    return (min(measured), max(measured)) if measured else None

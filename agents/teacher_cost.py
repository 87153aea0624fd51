"""What an LLM teacher will cost, role by role, as a range: nothing is sent, nothing is spent.

Tokens follow from bytes, for the tokenizers of providers are not here: by what earlier runs recorded, else by
stated assumptions. A run keeps its forecast, so that its report can show what became of it.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from agents.ledger import LEDGER, NANO, Ledger, cost_nano
from agents.llm_teacher import LLMTeacher
from agents.loop import Loop
from agents.recorded_usage import FORECAST, Recorded, Usage, recorded_usage
from agents.role_work import WORK, second_judge_work
from agents.teacher_work import SKILL_CHARS, End, Known, Work
from curriculum.config import Config
from curriculum.data import read_examples
from curriculum.data_config import FileSource
from curriculum.errors import UserError
from curriculum.generator import generate_examples
from curriculum.grading import Grader
from curriculum.records import Example
from curriculum.rundir import read_record, write_record
from curriculum.splits import split_examples
from curriculum.teacher_config import Endpoint
from curriculum.teacher_records import RoleForecast, TeacherForecast
from curriculum.teacher_words import short_of, total_words

BYTES_PER_TOKEN = (6, 2)
"""At the cheap and at the dear end, as assumed of a tokenizer that is not here."""
LEAST_ROW_TOKENS = 8
"""Of a reply, for each row that is asked for, as assumed; the most is the reply's limit."""
REQUEST_SECONDS = (1.0, 20.0)
"""From a request to its reply, as assumed."""


def teacher_forecast(
    config: Config, examples: Sequence[Example], recorded: Recorded, known: Known | None = None
) -> TeacherForecast:
    """The range of what a run with these examples will ask of its teacher.

    Args:
        config: of a run with an LLM teacher.
        examples: those of all splits, each with its split.
        recorded: what earlier runs say of the models.
        known: what the run has already, for a fork.
    """
    nowhere = Ledger(Path(os.devnull), config.teacher.budget, read_only=True)
    teacher = LLMTeacher(config, nowhere, Grader(), lambda what, p: None, lambda text: None, lambda: None)
    least, most = (End(config, examples, teacher, known or Known(), most) for most in (False, True))
    roles: list[RoleForecast] = []
    origins: dict[str, list[str]] = defaultdict(list)
    asked = [(config.teacher.endpoint(role), WORK[role]) for role in config.roles]
    if config.teacher.second_judge is not None:
        asked.append((config.teacher.second_judge_endpoint, second_judge_work))
    for endpoint, work in asked:
        low, high = work(least), work(most)
        if high.requests:
            usage = recorded.usage.get(endpoint.role)
            roles.append(_role(endpoint, low, high, usage))
            origins[_origin(endpoint, usage)].append(endpoint.role)
    basis = [*_course(least, most), *(f"{', '.join(of)}: {origin}." for origin, of in origins.items())]
    if recorded.unread:
        basis.append(f"Ledgers that could not be read: {', '.join(recorded.unread)}.")
    return TeacherForecast(rounds=config.rounds, roles=tuple(roles), basis=tuple(basis))


def _role(endpoint: Endpoint, low: Work, high: Work, usage: Usage | None) -> RoleForecast:
    limit = endpoint.max_tokens
    completion: tuple[float, float]
    if usage is None:
        prompt = low.text_bytes / BYTES_PER_TOKEN[0], high.bound / BYTES_PER_TOKEN[1]
        completion = min(LEAST_ROW_TOKENS * low.rows, limit * low.requests), limit * high.requests
        seconds = REQUEST_SECONDS
    else:
        prompt = low.bound * usage.tokens_per_byte[0], high.bound * usage.tokens_per_byte[1]
        completion = low.requests * usage.completion_tokens[0], high.requests * usage.completion_tokens[1]
        seconds = usage.seconds or REQUEST_SECONDS
    prompts, replies = (int(prompt[0]), -int(-prompt[1] // 1)), (int(completion[0]), -int(-completion[1] // 1))
    return RoleForecast(
        role=endpoint.role,
        model=endpoint.model,
        requests=(low.requests, high.requests),
        prompt_tokens=prompts,
        completion_tokens=replies,
        money=_money(endpoint, prompts, replies),
        minutes=(round(low.turns * seconds[0] / 60, 2), round(high.turns * seconds[1] / 60, 2)),
    )


def _money(endpoint: Endpoint, prompt: tuple[int, int], completion: tuple[int, int]) -> tuple[float, float] | None:
    """At the cheap end every prompt is cached, at the dear end none is."""
    prices = endpoint.prices
    if prices is None:
        return None
    each = [prices.input, prices.input if prices.cached_input is None else prices.cached_input]
    ends = zip((min(each), max(each)), prompt, completion, strict=True)
    low, high = (cost_nano(prices.model_copy(update={"input": p}), text, 0, reply) / NANO for p, text, reply in ends)
    return low, high


def _course(least: End, most: End) -> list[str]:
    """What happens at either end, in words."""
    share = 1 - least.config.plan.target_rate
    sentences = [
        f"Least: every reply is good at once, {share:.0%} of the first probe answers fail, no candidate is accepted "
        f"and rounds with training are {least.rounds}. Most: every reply needs its repair turn, every probe answer of "
        f"{most.rounds} examined adapters fails, and no new question is ever kept.",
        "Requests that fail and are sent again come on top, as does waiting for rate limits.",
    ]
    settings = least.config.teacher.catalogue
    if settings.source == "teacher" and least.known.catalogue is None:
        sentences.append(
            f"The catalogue is assumed to have {settings.least} to {settings.most} skills, described in "
            f"{SKILL_CHARS[0]} to {SKILL_CHARS[1]} characters."
        )
    return sentences


def _origin(endpoint: Endpoint, usage: Usage | None) -> str:
    """Where a role's tokens and times are from, in words."""
    assumed = f"{REQUEST_SECONDS[0]:g} to {REQUEST_SECONDS[1]:g} s a request assumed"
    if usage is None:
        return (
            f"no run recorded {endpoint.model} asked so, thus {BYTES_PER_TOKEN[1]} to {BYTES_PER_TOKEN[0]} bytes a "
            f"token, replies from {LEAST_ROW_TOKENS} tokens a row to their limit of {endpoint.max_tokens}, {assumed}"
        )
    low, high = usage.tokens_per_byte
    seconds = assumed if usage.seconds is None else f"{usage.seconds[0]:.2g} to {usage.seconds[1]:.2g} s a request"
    return (
        f"by {usage.replies} replies of {endpoint.model} in {', '.join(usage.runs)}, {low:.2g} to {high:.2g} tokens a "
        f"byte, {usage.completion_tokens[0]:.0f} to {usage.completion_tokens[1]:.0f} tokens a reply, {seconds}"
    )


def config_forecast(config: Config) -> TeacherForecast | str:
    """The forecast for the data that the config names, or why there is none. Fetches nothing from the Hub.

    Rows that a grader would refuse are not looked for: there may be a few examples fewer.
    """
    data = config.data
    if isinstance(data, FileSource) and data.hub is not None:
        return "unknown: the data are on the Hub and are not fetched for a forecast; `tutelage data check` does"
    try:
        examples = read_examples(data)[0] if isinstance(data, FileSource) else generate_examples(data, config.seed)[0]
        placed = split_examples(examples, data.splits, config.seed).examples
    except UserError as error:
        return f"unknown until the data can be used: {str(error).splitlines()[0]}"
    return teacher_forecast(config, placed, recorded_usage(config))


def record_forecast(loop: Loop) -> None:
    """Writes a run's forecast before its first request, and anew when it is to have other rounds; says what it is."""
    path = loop.run.path / FORECAST
    before = read_record(path, TeacherForecast) if path.exists() else None
    if (before and before.rounds == loop.config.rounds) or (before is None and (loop.run.path / LEDGER).exists()):
        return  # it is there, or requests were sent before there were forecasts
    inherited = loop.run.inherited
    rounds = [int(stage[6:8]) for stage in inherited if stage.startswith("round_")]
    known = Known(max(rounds, default=0), loop.proposed if "catalogue" in inherited else None, "label" in inherited)
    made = teacher_forecast(loop.config, list(loop.examples.values()), recorded_usage(loop.config), known)
    path.parent.mkdir(exist_ok=True)
    write_record(path, made)
    loop.say(f"teacher: {total_words(made)} forecast")
    for warning in short_of(loop.config.teacher.budget, made):
        loop.say(f"warning: {warning}")

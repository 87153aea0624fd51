"""Whether a teacher's models do what the config says of them: a few requests to each, and what came of them.

Structured output is tried by asking in words for the opposite of the schema; seeds by drawing at temperature 1; each
role by its own questions, put twice. What a server promises counts for nothing.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

from agents.bound import DryClient, bound_words, capped
from agents.chat import ChatClient
from agents.ledger import NANO, Ledger, cost_nano
from agents.llm_teacher import LLMTeacher
from agents.prepare import read_all
from agents.probes import AGAIN, MARKS, Heard, Probe, all_probes, hear
from agents.progress import ProgressPrinter
from agents.replies import Checked, Fault, check_reply
from agents.session import check_keys, open_loop
from agents.writing import SEEDS
from curriculum.agreement import repeatability
from curriculum.config import Config
from curriculum.errors import UserError
from curriculum.grading import Grader
from curriculum.records import Example, content_id
from curriculum.rundir import RunDir, write_record
from curriculum.statistics import wilson
from curriculum.teacher_config import Role
from curriculum.teacher_measures import Finding, ModelCheck, RoleCheck, TeacherCheck

RESULT, LEDGER = "check.json", "calls.jsonl"


def check_teacher(config: Config, folder: Path, items: int, progress: ProgressPrinter) -> TeacherCheck:
    """Asks every role's model a few things, within the budget; what it can cost at most is said first.

    Args:
        config: of a run with an LLM teacher.
        folder: keeps the ledger and the result; replies that are there are not bought again.
        items: questions put to each role.
        progress: is told what is sent at most, and how far it is.

    Raises:
        UserError: no LLM teacher, no key, or an endpoint refuses the key or the model.
        BudgetReached: a limit of `teacher.budget` was reached.
        TeacherUnavailable: an endpoint is down.
    """
    require_llm(config, "check a teacher")
    check_keys(config)
    examples = sample_of_pool(config, max(items, SEEDS), progress)
    with RunDir(folder):
        teacher, path = config.teacher, folder / LEDGER
        dry = DryClient(Ledger(path, teacher.budget), teacher, config.seed, repairs=False)
        with closing(_dry_teacher(config, dry)) as asks:
            probes = all_probes(config, asks, examples, items)
        asyncio.run(hear(dry, probes, lambda *_: None))
        announced = bound_words(dry.bound, dry.known, any(e.prices for e in config.endpoints))
        progress.say(f"checking {', '.join(dict.fromkeys(p.endpoint.model for p in probes))}: {announced}")
        ledger = Ledger(path, capped(teacher.budget, dry.ledger, dry.bound))
        client = ChatClient(ledger, teacher, config.seed, lambda: None)
        heard = asyncio.run(hear(client, probes, progress))
        models = tuple(_model(config, [h for h in heard if h.probe.model == at]) for at in _in_order(probes))
        made = TeacherCheck(
            folder=str(folder),
            announced=announced,
            models=models,
            roles=tuple(_role(role, heard) for role in config.roles if _of_role(role, heard)),
            spend=ledger.spend(),
            advice=tuple(advice for model in models for advice in _advice(config, model)),
        )
        write_record(folder / RESULT, made)
        return made


def require_llm(config: Config, purpose: str) -> None:
    """Refuses the offline teacher, which asks nobody.

    Raises:
        UserError: with what to set.
    """
    if config.teacher.kind == "offline":
        raise UserError(
            f"teacher.kind: expected `llm` to {purpose}, got `offline`, which asks nobody. Name a model under "
            "`teacher` in the config: docs/teachers.md"
        )


def sample_of_pool(config: Config, items: int | None, progress: ProgressPrinter) -> list[Example]:
    """Questions of the pool as a run would split it, at most `items`, the same for the same seed; none is held out."""
    with (
        TemporaryDirectory(prefix="tutelage-teacher-") as draft,
        open_loop(RunDir(Path(draft)), config, progress) as loop,
    ):
        result, _ = read_all(loop)
    pool = [e for e in result.examples if e.split == "pool"]
    return sorted(pool, key=lambda e: content_id([config.seed, "check", e.id]))[:items]


def _dry_teacher(config: Config, client: ChatClient) -> LLMTeacher:
    def quiet(*_: object) -> None:
        pass

    return LLMTeacher(config, client.ledger, Grader(), quiet, quiet, quiet, client)


def _in_order(probes: Sequence[Probe]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(p.model for p in probes))


def _of_role(role: Role, heard: Sequence[Heard]) -> list[Heard]:
    return [h for h in heard if h.probe.question is not None and h.probe.call.purpose.role == role]


def _model(config: Config, heard: Sequence[Heard]) -> ModelCheck:
    ways = {way: [h for h in heard if h.probe.way == way] for way in ("json_schema", "json_object", "logprobs", "seed")}
    roles = dict.fromkeys(e.role for e in config.endpoints if (e.base_url, e.model) == heard[0].probe.model)
    base_url, model = heard[0].probe.model
    return ModelCheck(
        model=model,
        base_url=base_url,
        roles=tuple(roles),
        served=tuple(sorted({h.reply.model for h in heard if h.reply and h.reply.model})),
        structured=config.teacher.endpoint(next(iter(roles))).structured,
        json_schema=_form(ways["json_schema"], lambda value: value.keys() == {"mark"} and value["mark"] in MARKS),
        json_object=_form(ways["json_object"], lambda value: True),
        log_probabilities=_logprobs(ways["logprobs"][0]),
        seed=_seed(ways["seed"]),
    )


def _missed(heard: Sequence[Heard]) -> Finding | None:
    """What stands in place of a finding where a request got no reply."""
    faults = [h.fault for h in heard if h.fault is not None]
    if not faults:
        return None
    return Finding(verdict="refused" if faults[0].kind == "refused_request" else "unclear", said=faults[0].reason)


def _form(heard: Sequence[Heard], follows: Any) -> Finding:
    """Whether replies have a form that the words asked not to have."""
    missed = _missed(heard)
    if missed is not None:
        return missed
    came = [h.reply for h in heard if h.reply is not None]
    replies = [r for r in came if r.finish_reason != "length"]  # of a cut one nobody knows what it would have become
    if not replies:
        return Finding(verdict="unclear", said="every reply was cut at its token limit")
    held = [isinstance(value := _bare(r.text), dict) and follows(value) for r in replies]
    said = f"{sum(held)} of {len(held)} replies kept to it, though asked in words for a sentence"
    if len(replies) < len(came):
        said += f"; {len(came) - len(replies)} more cut at the token limit"
    if not all(held):
        worst = replies[held.index(False)].text
        said += f"; one was {' '.join(worst[:60].split())!r}"
    return Finding(verdict="yes" if all(held) else "no", said=said)


def _bare(text: str) -> Any:
    """The JSON value that a text is, all of it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _logprobs(heard: Heard) -> Finding:
    missed = _missed([heard])
    if missed is not None or heard.reply is None:
        return missed or Finding(verdict="unclear", said="no reply")
    n = heard.reply.logprob_tokens
    return Finding(verdict="yes" if n else "no", said=f"came with {n} tokens" if n else "asked for, none came")


def _seed(heard: Sequence[Heard]) -> Finding:
    """Replies come in pairs of the same seed."""
    missed = _missed(heard)
    if missed is not None:
        return missed
    texts = [h.reply.text for h in heard if h.reply is not None]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    same = sum(first == again for first, again in pairs)
    said = f"the same seed gave the same reply {same} of {len(pairs)} times"
    if same < len(pairs):
        return Finding(verdict="no", said=said)
    if len(set(texts)) == 1:
        return Finding(verdict="unclear", said="every reply was the same, with other seeds, too")
    return Finding(verdict="yes", said=f"{said}, another seed another one")


def _role(role: Role, heard: Sequence[Heard]) -> RoleCheck:
    own = _of_role(role, heard)
    firsts, agains = ([h for h in own if (h.probe.call.what == AGAIN) == again] for again in (False, True))
    checked = {id(h): _checked(h) for h in own}
    replies = [h.reply for h in own if h.reply is not None]
    seconds = [r.seconds for r in replies if r.seconds is not None]
    used = [[_used(checked[id(h)]) for h in of] for of in (firsts, agains)]
    both = [{str(n): skills for n, skills in enumerate(of) if skills is not None} for of in used]
    same = [a.reply.text == b.reply.text for a, b in zip(firsts, agains, strict=True) if a.reply and b.reply]
    endpoint = own[0].probe.endpoint
    counted = [(r.prompt_tokens, r.cached_tokens, r.completion_tokens) for r in replies]
    usage = [(p, cached, c) for p, cached, c in counted if p is not None and c is not None]
    prices = [cost_nano(endpoint.prices, *tokens) / NANO for tokens in usage] if endpoint.prices else []
    return RoleCheck(
        role=role,
        model=endpoint.model,
        usable=wilson(sum(of is not None for of in used[0]), len(firsts)),
        bare=wilson(sum(isinstance(_bare(r.text), dict) for r in replies), len(replies)),
        faults=dict(Counter(f.kind for of in checked.values() for f in list(of.faults.values())[:1])),
        seconds=median(seconds) if seconds else None,
        seconds_most=max(seconds, default=None),
        prompt_tokens=fmean(p for p, _, _ in usage) if usage else None,
        completion_tokens=fmean(c for _, _, c in usage) if usage else None,
        price=fmean(prices) if prices else None,
        same_text=wilson(sum(same), len(same)),
        repeat=repeatability(len(firsts), *both),
    )


def _checked(heard: Heard) -> Checked[Any]:
    """The rows of a role's reply, as a run would read it."""
    question = heard.probe.question
    assert question is not None
    if heard.reply is None:
        assert heard.fault is not None
        return Checked({}, dict.fromkeys(question.wanted, Fault(heard.fault.kind, heard.fault.reason)))
    return check_reply(heard.reply, question.model, question.batch, question.wanted, question.check)


def _used(checked: Checked[Any]) -> frozenset[str] | None:
    """What a run takes from a usable reply."""
    if checked.faults:
        return None
    made: set[str] = set()
    for row in checked.rows.values():
        for name in ("skills", "missing_skills", "questions"):
            made.update(getattr(row, name, ()))
        made.update([row.answer] if hasattr(row, "answer") else [])
    return frozenset(made)


def _advice(config: Config, model: ModelCheck) -> Iterator[str]:
    """What to change in the config, by what was found."""
    at = f"{model.model} ({', '.join(model.roles)})"
    found: Mapping[str, Finding] = {"json_schema": model.json_schema, "json_object": model.json_object}
    best = next((way for way, finding in found.items() if finding.verdict == "yes"), "prompt")
    declared = found.get(model.structured)
    if declared is not None and declared.verdict in ("no", "refused"):
        yield f"{at}: `structured: {model.structured}` is not honoured ({declared.said}): set `structured: {best}`"
    elif model.structured == "prompt" and best != "prompt":
        yield f"{at}: `structured: {best}` is honoured and would spare repair turns; the config has `prompt`"
    sent = config.teacher.endpoint(model.roles[0]).seed
    if sent and model.seed.verdict == "refused":
        yield f"{at}: a seed is refused ({model.seed.said}): set `seed: false`"
    elif sent and model.seed.verdict == "no":
        yield f"{at}: the seed is ignored: another run gets other replies, whatever `seed` says"
    elif not sent and model.seed.verdict == "yes":
        yield f"{at}: a seed is honoured; `seed: true` would send it"

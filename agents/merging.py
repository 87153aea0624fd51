"""The node `merge`: what is made of a round's adapter between its training and its gate, where the config wants it.

First LiNeS' scale of depth is chosen (stage `lines`), then the earlier rounds' adapters that the mean gains by (stage
`soup`): on the probe, or on a half of it each, never on items that judge. What was chosen is an adapter like any other
(stage `merge`). The others' weights are gone once it is there; their answers stay.
"""

import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from agents.evaluation import Evaluation, evaluate_split
from agents.history import gate_decision
from agents.loop import MERGE, Loop, State, stage_inputs
from curriculum.config import Config
from curriculum.gate import answered_right
from curriculum.merge_records import Ingredient, LinesChoice, Merged, SoupChoice, SoupStep
from curriculum.merging import choice_halves, choose_lines, greedy_soup, share
from curriculum.records import Rate, content_id
from curriculum.round_records import Adapter
from curriculum.rundir import DONE, file_hash, is_whole, read_record, write_record
from curriculum.statistics import wilson
from student.interface import AdapterFiles, Scaled
from student.vllm_server import room_for

LINES, SOUP = "lines", "soup"
"""The stages of the two choices, and what their files are called."""
DRAFTS = "drafts"
"""In a round's folder while it chooses: the weights of what is tried."""


class Blend(NamedTuple):
    """An adapter by what it is made of: the mean of trained ones, each scaled with depth."""

    name: str
    parts: tuple[Ingredient, ...]

    @property
    def as_trained(self) -> bool:
        """Whether it is a trained adapter with nothing done to it."""
        return len(self.parts) == 1 and self.parts[0].a == 1


def merge(loop: Loop, state: State) -> State:
    """Where the config wants it, the round's adapter is scaled with depth, then averaged with earlier rounds'."""
    round_ = state["round"]
    of_round = [stage for stage in loop.run.inherited if stage.startswith(f"round_{round_:02d}/")]
    if of_round:  # a round that a fork took over stays as it is
        update = State()
        for stage in (LINES, SOUP, MERGE):
            if f"round_{round_:02d}/{stage}" in of_round:
                update.update(loop.stage(loop.run.round_stage(round_, stage), {}, lambda _: {}))
        return update
    current = loop.adapter_files(state["adapter"], state["adapter_round"])
    return {"candidate": merged_adapter(loop, loop, round_, current)}


def wants_merging(config: Config) -> bool:
    """Whether anything is tried with an adapter after its training."""
    return bool(config.training.lines) or config.training.soup


def merged_adapter(loop: Loop, own: Loop, round_: int, current: AdapterFiles) -> str:
    """The name of the adapter that goes on to be judged: the trained one, or what was made of it.

    Args:
        loop: who answers.
        own: whose config and stages it is: the loop's own, or a bench's training.
        round_: a trained one.
        current: the adapter that the round began with.
    """
    training = own.config.training
    blend = _trained(own, round_, 1.0)
    if not wants_merging(own.config):
        return blend.name
    probe = [e for e in loop.split("probe") if e.gold]
    halved = bool(training.lines) and training.soup
    everything = frozenset(e.id for e in probe)
    first, second = choice_halves(probe, loop.config.seed) if halved else (everything, everything)
    if training.lines:
        blend = _choose_lines(loop, own, round_, current, (first, halved))
    if training.soup:
        blend = _choose_soup(loop, own, round_, blend, (second, halved))
    if not blend.as_trained:
        _write(own, round_, blend)
    shutil.rmtree(own.run.round_stage(round_, DRAFTS), ignore_errors=True)
    return blend.name


Items = tuple[frozenset[str], bool]
"""The ids of the items that choose, and whether they are half of the probe."""


def _trained(own: Loop, round_: int, a: float) -> Blend:
    """A round's own adapter, scaled with depth."""
    adapter = read_record(own.run.round_stage(round_, "train") / "adapter.json", Adapter)
    name = adapter.name if a == 1 else f"{adapter.name}-lines{a:g}"
    return Blend(name, (Ingredient(adapter=adapter.name, round=round_, a=a, files=adapter.files),))


def _single(own: Loop, round_: int) -> Blend:
    """A round's own adapter with the scale that was chosen for it."""
    chosen = read_lines(own, round_)
    return _trained(own, round_, 1.0 if chosen is None else chosen.chosen.a)


def _mean(own: Loop, round_: int, members: Sequence[Blend]) -> Blend:
    if len(members) == 1:
        return members[0]
    name = f"{own.name}-r{round_:02d}-soup-{content_id([m.name for m in members], 8)}"
    return Blend(name, tuple(part for m in members for part in m.parts))


def read_lines(own: Loop, round_: int) -> LinesChoice | None:
    """Which scale a round chose; none where it tried none."""
    file = own.run.round_stage(round_, LINES) / f"{LINES}.json"
    return read_record(file, LinesChoice) if file.exists() else None


def read_soup(own: Loop, round_: int) -> SoupChoice | None:
    """What went into a round's soup; none where none was tried."""
    file = own.run.round_stage(round_, SOUP) / f"{SOUP}.json"
    return read_record(file, SoupChoice) if file.exists() else None


def chosen_blend(own: Loop, round_: int) -> Blend:
    """What the choices of a round came to."""
    single, soup = _single(own, round_), read_soup(own, round_)
    return single if soup is None else _mean(own, round_, [single, *(_single(own, s.round) for s in soup.taken)])


def _choose_lines(loop: Loop, own: Loop, round_: int, current: AdapterFiles, items: Items) -> Blend:
    assert own.config.training.lines
    before = evaluate_split(loop, current, "probe")
    blends = [_trained(own, round_, a) for a in sorted(own.config.training.lines, reverse=True)]
    answered = [_answers(loop, own, round_, blend) for blend in blends]
    scaled = [(b.name, b.parts[0].a, _right(e, items)) for b, e in zip(blends, answered, strict=True)]

    def work(folder: Path) -> Mapping[str, Any]:
        made = choose_lines(round_, _right(before, items), scaled, items[1])
        write_record(folder / f"{LINES}.json", made)
        return {}

    inputs = stage_inputs(own, own.run.round_stage(round_, "train")) | _answer_inputs(loop, [before, *answered])
    own.stage(own.run.round_stage(round_, LINES), inputs, work)
    return _single(own, round_)


def _choose_soup(loop: Loop, own: Loop, round_: int, first: Blend, items: Items) -> Blend:
    earlier = [_single(own, r) for r in range(round_ - 1, 0, -1) if gate_decision(own, r).candidate is not None]
    if not earlier:
        return first
    answered: dict[str, Evaluation] = {}

    def rate(blend: Blend) -> Rate:
        answered[blend.name] = _answers(loop, own, round_, blend)
        right = _right(answered[blend.name], items)
        return wilson(sum(right.values()), len(right))

    def score(members: tuple[Blend, ...]) -> Fraction:
        return share(rate(_mean(own, round_, members)))

    # The later one first where two are as good.
    ordered = [first, *sorted(earlier, key=lambda blend: -share(rate(blend)))]
    tried = greedy_soup(ordered, score)

    def work(folder: Path) -> Mapping[str, Any]:
        steps = []
        for one in tried:
            added, soup = ordered[one.at], _mean(own, round_, [ordered[at] for at in one.members])
            steps.append(
                SoupStep(
                    adapter=added.name,
                    round=added.parts[0].round,
                    alone=rate(added),
                    soup=soup.name,
                    together=rate(soup),
                    accepted=one.accepted,
                )
            )
        made = SoupChoice(round=round_, halved=items[1], adapter=first.name, alone=rate(first), steps=tuple(steps))
        write_record(folder / f"{SOUP}.json", made)
        return {}

    rounds = [round_, *(blend.parts[0].round for blend in earlier)]
    inputs = stage_inputs(own, *(own.run.round_stage(r, "train") for r in rounds))
    own.stage(own.run.round_stage(round_, SOUP), inputs | _answer_inputs(loop, answered.values()), work)
    return chosen_blend(own, round_)


def _answer_inputs(loop: Loop, answered: Any) -> dict[str, str]:
    """The answers as inputs of a stage, by their folder in the run of whoever answers."""
    return {e.folder.relative_to(loop.run.path).as_posix(): loop.run.outputs_hash(e.folder) for e in answered}


def _right(answered: Evaluation, items: Items) -> dict[str, bool]:
    return {id_: right for id_, right in answered_right(answered.grades).items() if id_ in items[0]}


def _answers(loop: Loop, own: Loop, round_: int, blend: Blend) -> Evaluation:
    """What a blend answers on the probe; its weights are made where they are not there and it has not answered."""
    if blend.as_trained:
        return evaluate_split(loop, own.adapter_files(blend.name, blend.parts[0].round), "probe")
    drafts = own.run.round_stage(round_, DRAFTS)
    if not is_whole(loop.run.stage_path("answers") / blend.name / "probe"):
        drafts.mkdir(parents=True, exist_ok=True)
        _make(own, blend, drafts / blend.name, drafts / "merge.log")
    return evaluate_split(loop, AdapterFiles(blend.name, drafts / blend.name, merged=True), "probe")


def _make(own: Loop, blend: Blend, folder: Path, log: Path) -> Merged:
    parts = [Scaled(own.run.round_stage(p.round, "train") / p.adapter, p.a) for p in blend.parts]
    made = own.student.merge(parts, rank_limit(own.config), folder, log)
    return Merged(ingredients=blend.parts, rank=made.rank, norm=made.norm, error=made.error)


def rank_limit(config: Config) -> int | None:
    """The most rank of a merged adapter: that of training where it goes on from it, else what a server has room for.

    None where neither is so.
    """
    student, rank = config.student, config.training.rank
    if config.training.start == "accepted":
        return rank
    served = student.engine == "vllm" and student.vllm.adapters != "merged"
    return room_for(student.vllm, rank) if served else None


def _write(own: Loop, round_: int, blend: Blend) -> None:
    read = [own.run.round_stage(round_, s) for s in (LINES, SOUP) if (own.run.round_stage(round_, s) / DONE).exists()]
    read += [own.run.round_stage(r, "train") for r in dict.fromkeys(part.round for part in blend.parts)]

    def work(folder: Path) -> Mapping[str, Any]:
        for unfinished in folder.iterdir():
            if unfinished.is_dir():
                shutil.rmtree(unfinished)
        draft = folder / "draft"
        merged = _make(own, blend, draft, folder / "merge.log")
        files = {p.name: file_hash(p) for p in sorted(draft.iterdir())}
        name = write_merged(own, round_, blend, files, merged, folder).name
        draft.rename(folder / name)
        return {"candidate": name}

    own.stage(own.run.round_stage(round_, MERGE), stage_inputs(own, *read) | {"base": own.base_hash}, work)


def write_merged(
    own: Loop, round_: int, blend: Blend, files: Mapping[str, str], merged: Merged, folder: Path
) -> Adapter:
    """Writes the record of what a round's adapter became; all that is of its training stays that of the training."""
    trained = read_record(own.run.round_stage(round_, "train") / "adapter.json", Adapter)
    made = trained.model_copy(update={"name": blend.name, "files": dict(files), "merged": merged})
    write_record(folder / "adapter.json", made)
    return made

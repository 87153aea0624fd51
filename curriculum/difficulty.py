"""How hard the pool rows of a round are for this student: bins of the pool, the bins to begin with, when to move on.

Takes a measure of every pool item (how often the student is right when it draws its answers, else the length of the
worked solution) and how the last training changed easy, middle and hard gate items; returns the bins that get most rows
and the reason. The best difficulty depends on the number of rows: harder with more. Asks nobody and draws nothing.

Source: Liu et al. 2026 (arXiv 2605.12906) for what is found: too hard rows lower every slice, too easy ones raise the
easy slices alone. They give no rule; bins, budgets, levels and the floor are this project's.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from statistics import fmean
from typing import get_args

from curriculum.difficulty_records import Bin, DifficultyPlan, DifficultySlice, Measure
from curriculum.extraction import taught_texts
from curriculum.gate_odds import gate_p_value
from curriculum.mixture import Draw, Pool, PoolDraw, apportion, room_left
from curriculum.records import Example
from curriculum.round_records import ItemSignals, RoundPlan

BINS: tuple[Bin, ...] = get_args(Bin)
FLOOR = Fraction(1, 10)
"""Of a skill's pool rows, what every bin gets at least."""
FEW, MANY = 1000, 100_000
"""Rows of a round below which easy and middle ones are begun with, and from which hard ones are."""
SEEN = 0.2
"""The one-sided p-value up to which a slice is up, or all of them are down: a move is cheap, and can be undone."""
SEPARATOR = "\x00"
"""Between a skill and a bin while rows are drawn; no skill has it in its name."""
Key = tuple[float, ...]
"""What orders items from easy to hard."""


def signal_key(signals: ItemSignals) -> Key | None:
    """Harder with fewer right samples, then with a higher entropy; none where no sample was graded."""
    if not signals.samples:
        return None
    return (1 - signals.correct / signals.samples, signals.entropy or 0.0)


def pool_bins(keys: Mapping[str, Key], pool: Pool) -> dict[str, Bin]:
    """The third of its skill in which each pool item is; of several skills by its mean place.

    Items of one key are in one place: a skill whose items are all alike is all middle, and so is an item without a key.

    Args:
        keys: example id → what orders it; items may be missing.
        pool: from `index_pool`.
    """
    places: defaultdict[str, list[float]] = defaultdict(list)
    for members in pool.members.values():
        ids = [pool.ids[at] for at in members.tolist() if pool.ids[at] in keys]
        ordered = sorted(keys[id_] for id_ in ids)
        for id_ in ids:
            low, high = bisect_left(ordered, keys[id_]), bisect_right(ordered, keys[id_])
            places[id_].append((low + high) / (2 * len(ordered)))
    return {id_: BINS[min(2, int(3 * fmean(places.get(id_, [0.5]))))] for id_ in pool.ids}


def thirds(keys: Mapping[str, Key]) -> dict[str, Bin]:
    """The third in which each item is of all of them; items of one key are in one third, so one may be empty."""
    ordered = sorted(keys.values())
    places = {id_: bisect_left(ordered, key) + bisect_right(ordered, key) for id_, key in keys.items()}
    return {id_: BINS[min(2, 3 * place // (2 * len(ordered)))] for id_, place in places.items()}


def solution_lengths(examples: Iterable[Example]) -> dict[str, Key]:
    """Words of the worked solutions, on average; of the examples that have any."""
    taught = {e.id: taught_texts(e) for e in examples if e.solutions}
    return {id_: (sum(len(text.split()) for text in texts) / len(texts),) for id_, texts in taught.items()}


def start_focus(rows: int) -> tuple[Bin, ...]:
    """The bins to begin with for so many rows: easy to middle for hundreds, middle for thousands, then hard, too."""
    return ("easy", "middle") if rows < FEW else ("middle",) if rows < MANY else ("middle", "hard")


def moved(focus: Sequence[Bin], by: int) -> tuple[Bin, ...]:
    """The bins one easier (−1) or one harder (+1); what would leave the scale is dropped, the last bin stays."""
    places = [BINS.index(name) + by for name in focus]
    inside = [place for place in places if 0 <= place < len(BINS)]
    return tuple(BINS[place] for place in inside) or tuple(focus)


def slices_of(
    before: Mapping[str, bool], after: Mapping[str, bool], keys: Mapping[str, Key], retrain_sd: float
) -> tuple[DifficultySlice, ...]:
    """How a training changed easy, middle and hard items, which both answered; fewer slices where keys are tied.

    Args:
        before: example id → right, by the adapter that was trained on.
        after: the same by the trained one.
        keys: example id → what orders it from easy to hard.
        retrain_sd: standard deviation of what another seed alone changes, in shares of 1; see `gate_p_value`.
    """
    bins = thirds({id_: keys[id_] for id_ in before if id_ in after and id_ in keys})
    of_bin: defaultdict[Bin, list[str]] = defaultdict(list)
    for id_, name in sorted(bins.items()):
        of_bin[name].append(id_)
    made = []
    for name in BINS:
        members = of_bin[name]
        if members:
            gained = sum(after[id_] and not before[id_] for id_ in members)
            lost = sum(before[id_] and not after[id_] for id_ in members)
            up, down = (gate_p_value(*pair, len(members), retrain_sd) for pair in ((gained, lost), (lost, gained)))
            made.append(DifficultySlice(bin=name, items=len(members), gained=gained, lost=lost, p_up=up, p_down=down))
    return tuple(made)


def choose(
    measure: Measure,
    bins: Mapping[str, Bin],
    rows: int,
    last: DifficultyPlan | None,
    slices: Sequence[DifficultySlice],
    retrain_sd: float,
) -> DifficultyPlan:
    """The bins that get most rows this round: those of the budget at first, then moved by what the last ones did.

    All slices down, and together unlikely by chance: too hard, one bin easier. The easy slice up and the hard one not:
    too easy, one bin harder. Otherwise as they were.

    Args:
        measure: what orders the pool's items.
        bins: pool item → bin, from `pool_bins`.
        rows: new rows of the round.
        last: of the last round that trained; none for the first.
        slices: of that round's training, from `slices_of`.
        retrain_sd: as for `slices_of`.
    """
    focus, reason = (last.focus, "") if last else (start_focus(rows), f"{rows} rows")
    if last:
        focus, reason = _next(last.focus, {part.bin: part for part in slices}, retrain_sd)
    counts = {name: sum(of == name for of in bins.values()) for name in BINS}
    return DifficultyPlan(measure=measure, focus=focus, items=counts, slices=tuple(slices), reason=reason)


def _next(focus: tuple[Bin, ...], by: Mapping[Bin, DifficultySlice], retrain_sd: float) -> tuple[tuple[Bin, ...], str]:
    if len(by) < 2:
        return (
            focus,
            "the gate's items are all alike in difficulty: nothing says if rows were too hard or too easy",
        )
    lost, gained = sum(s.lost for s in by.values()), sum(s.gained for s in by.values())
    p_down = gate_p_value(lost, gained, sum(s.items for s in by.values()), retrain_sd)
    if all(s.lost > s.gained for s in by.values()) and p_down <= SEEN:
        return moved(focus, -1), f"all slices of the gate fell (p {p_down:.2g}): too hard, one bin easier"
    easiest, hardest = by[min(by, key=BINS.index)], by[max(by, key=BINS.index)]
    if easiest.p_up <= SEEN < hardest.p_up:
        return moved(focus, 1), (
            f"the easiest slice of the gate rose (p {easiest.p_up:.2g}), the hardest did not (p {hardest.p_up:.2g}): "
            "too easy, one bin harder"
        )
    return focus, "the slices of the gate say neither too hard nor too easy"


def bin_shares(focus: Sequence[Bin]) -> dict[Bin, Fraction]:
    """What each bin gets of a skill's pool rows: the floor, and an even part of the rest where it is in focus."""
    rest = 1 - FLOOR * len(BINS)
    return {name: FLOOR + (rest / len(set(focus)) if name in focus else 0) for name in BINS}


def by_bin(
    plan: RoundPlan, pool: Pool, bins: Mapping[str, Bin], focus: Sequence[Bin], used: Mapping[str, int], repeats: int
) -> tuple[RoundPlan, Pool]:
    """A plan and a pool for `draw_pool` in which each skill is parted by bins; `joined` puts what is drawn together.

    What a bin's items cannot hold goes to the skill's other bins, the nearest to the focus first, and only then away.

    Args:
        plan: its pool rows are parted.
        pool: from `index_pool`.
        bins: pool item → bin.
        focus: the bins that get most rows.
        used: example id → uses in the rows of accepted rounds.
        repeats: most uses of one example.
    """
    room, shares = room_left(pool, used, repeats), bin_shares(focus)
    order = sorted(BINS, key=lambda name: (min(abs(BINS.index(name) - BINS.index(f)) for f in focus), name))
    members = {}
    parts = []
    for part in plan.skills:
        rows = apportion({str(name): share for name, share in shares.items()}, part.pool_rows)
        holds = {}
        for name in BINS:
            at = pool.members.get(part.skill, room[:0])
            at = at[[bins[pool.ids[i]] == name for i in at.tolist()]] if len(at) else at
            members[f"{part.skill}{SEPARATOR}{name}"] = at
            holds[name] = int(room[at].clip(0).sum())
        over = sum(max(0, rows[name] - holds[name]) for name in BINS)
        given = {name: min(rows[name], holds[name]) for name in BINS}
        for name in order:
            more = min(over, holds[name] - given[name])
            given[name] += more
            over -= more
        given[order[0]] += over  # more than the skill holds: `draw_pool` moves it to other skills
        parts += [
            part.model_copy(update={"skill": f"{part.skill}{SEPARATOR}{name}", "pool_rows": given[name]})
            for name in BINS
        ]
    return plan.model_copy(update={"skills": tuple(parts)}), pool._replace(members=members)


def joined(drawn: PoolDraw) -> PoolDraw:
    """What was drawn by skill and bin, by skill again."""
    rows: defaultdict[tuple[str, str], int] = defaultdict(int)
    for draw in drawn.draws:
        rows[draw.skill.partition(SEPARATOR)[0], draw.example_id] += draw.rows
    away: defaultdict[str, int] = defaultdict(int)
    for skill, count in drawn.moved.items():
        away[skill.partition(SEPARATOR)[0]] += count
    draws = tuple(Draw(id_, skill, count) for (skill, id_), count in sorted(rows.items()))
    return PoolDraw(draws, dict(away), drawn.shortfall)

"""Forgetting: whether a candidate lost what the current adapter had, on the retention set.

The retention set is the gate items of the skills that are mastered, and every extra set that the config marks
`retention: true`. Takes which items both adapters answered right; returns the parts of the set with their evidence.
`gate.decide` rolls a candidate back for a part that fell; the next plan replays rows of what regressed. The probe items
of mastered skills are no part of it: they made the skills mastered, so luck alone has them fall; re-tests watch them.

The test is the gate's own, turned around: the exact test on the discordant items, one-sided, for a retrain of the same
recipe with another seed; adjusted (Benjamini-Hochberg) over the parts and, where there are several, all items together.
Where no part truly fell, a candidate is so rolled back with a probability of at most `RETENTION_ALPHA`, mostly of far
less, for items come in whole numbers: `benchmarks/retention_error_rates.py` simulates it. Two things are not in that: a
single skill may differ more between two seeds than `gate.retrain_sd` says of all items, and the current adapter was
itself accepted on the gate items, so its luck there can look like a fall of the next.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from curriculum.gate_odds import gate_p_value
from curriculum.round_records import RetentionPart
from curriculum.statistics import benjamini_hochberg, paired_change, wilson

RETENTION_ALPHA = 0.05
"""A part that falls with an adjusted p-value at or below this rolls the candidate back."""

REPLAY_ALPHA = 0.2
"""A part that falls with an unadjusted p-value at or below this has its rows replayed first: that costs nothing, so it
needs less evidence than throwing a training away."""

ALL_ITEMS = "all items"


class Kept(NamedTuple):
    """One part of the retention set, and which of its items the two adapters answered right, by example id."""

    name: str
    kind: Literal["skill", "set", "all"]
    before: Mapping[str, bool]
    after: Mapping[str, bool]
    skills: Mapping[str, Collection[str]]
    """Example id → the skills of the catalogue that it needs; a mastered skill's own items name that skill alone."""


def retention_parts(kept: Sequence[Kept], retrain_sd: float) -> tuple[RetentionPart, ...]:
    """Each part before and after on the items both answered, sorted by kind and name; several parts together last.

    Args:
        kept: the parts, with distinct names of a kind; one without common items has no rate and no p-value.
        retrain_sd: the config's `gate.retrain_sd`, in shares of 1.
    """
    parts = sorted(kept, key=lambda part: (part.kind != "skill", part.name))
    if len(parts) > 1:
        before = {id_: right for part in parts for id_, right in part.before.items()}
        after = {id_: right for part in parts for id_, right in part.after.items()}
        parts.append(Kept(ALL_ITEMS, "all", before, after, {}))
    changes = [paired_change(part.before, part.after) for part in parts]
    alone = [gate_p_value(c.lost, c.gained, c.n, retrain_sd) if c.n else None for c in changes]
    adjusted = benjamini_hochberg(alone)
    made = []
    for part, change, p, q in zip(parts, changes, alone, adjusted, strict=True):
        both = part.before.keys() & part.after.keys()
        made.append(
            RetentionPart(
                kind=part.kind,
                name=part.name,
                before=wilson(sum(part.before[id_] for id_ in both), len(both)),
                after=wilson(sum(part.after[id_] for id_ in both), len(both)),
                change=change,
                p_alone=p,
                p_value=q,
                fell=q is not None and q <= RETENTION_ALPHA,
                replay=_lost_skills(part) if p is not None and p <= REPLAY_ALPHA else (),
            )
        )
    return tuple(made)


def regressed(parts: Sequence[RetentionPart]) -> tuple[str, ...]:
    """The skills whose rows the next plan replays first, those of the surest fall first."""
    by_fall = sorted(parts, key=lambda part: 1.0 if part.p_alone is None else part.p_alone)
    return tuple(dict.fromkeys(skill for part in by_fall for skill in part.replay))


def _lost_skills(part: Kept) -> tuple[str, ...]:
    """The skills of the items that only the current adapter answered right."""
    lost = [id_ for id_, right in part.before.items() if right and not part.after.get(id_, True)]
    return tuple(sorted({skill for id_ in lost for skill in part.skills.get(id_, ())}))

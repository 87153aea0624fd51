"""Whether a plan that a person or an LLM made can be followed: every fault, in words.

Takes the proposed and the edited plan, the catalogue, and what the pool and the teacher can give. Changes nothing.
"""

from collections.abc import Collection, Mapping, Sequence

from curriculum.records import SkillCatalogue
from curriculum.round_records import RoundPlan, SkillPlan


def check_edited(
    proposed: RoundPlan,
    edited: RoundPlan,
    pool_sizes: Mapping[str, Mapping[int, int]],
    catalogue: SkillCatalogue,
    written_levels: Mapping[str, Sequence[int]],
) -> list[str]:
    """Every reason why an edited plan cannot be followed; empty when it can be."""
    faults = []
    if edited.round != proposed.round:
        faults.append(f"round: expected {proposed.round}, got {edited.round}")
    names = [part.skill for part in edited.skills]
    faults += [
        f"skill {name!r} is given {names.count(name)} times" for name in sorted(set(names)) if names.count(name) > 1
    ]
    known = {skill.id: skill for skill in catalogue.skills}
    for part in edited.skills:
        if part.skill not in known:
            faults.append(f"skill {part.skill!r} is not in the catalogue; known: {', '.join(sorted(known))}")
            continue
        if part.pool_rows and not sum(pool_sizes.get(part.skill, {}).values()):
            faults.append(f"skill {part.skill!r}: {part.pool_rows} pool rows, but the pool has none of it")
        levels = written_levels.get(part.skill, ()) if known[part.skill].writable else ()
        faults += _written_faults(part, levels)
    strange = sorted(set(edited.replay_first) - known.keys())
    faults += [
        f"replay_first: skill {name!r} is not in the catalogue; known: {', '.join(sorted(known))}" for name in strange
    ]
    if edited.action == "train" and edited.new_rows == 0:
        faults.append("nothing to train: no skill has pool rows or written rows; set `action: stop` to end the run")
    return faults


def _written_faults(part: SkillPlan, levels: Collection[int]) -> list[str]:
    faults = []
    for level, rows in part.written_rows.items():
        if rows < 0:
            faults.append(f"skill {part.skill!r}: expected 0 or more written rows at difficulty {level}, got {rows}")
        elif rows and level not in levels:
            can = f"difficulties {', '.join(map(str, sorted(levels)))} only" if levels else "none of it"
            faults.append(
                f"skill {part.skill!r}: {rows} written rows at difficulty {level}, but the teacher writes {can}"
            )
    return faults

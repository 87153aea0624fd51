"""What rows cost in training tokens before they are made, and the tokens that every training of a bench gets."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from curriculum.config import Config
from curriculum.mixture import Pool
from curriculum.round_records import RoundPlan


class Lengths:
    """What a row costs in training tokens, all epochs: known for pool items, by likeness for written ones."""

    def __init__(self, pool: Pool, tokens: Mapping[str, int]) -> None:
        """`tokens`: pool example → tokens that pass through the model when it is one row."""
        self.pool, self.tokens = pool, tokens
        of_level: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        of_skill: defaultdict[str, list[int]] = defaultdict(list)
        for skill, members in pool.members.items():
            for at in members.tolist():
                cost = tokens[pool.ids[at]]
                of_skill[skill].append(cost)
                of_level[skill, int(pool.difficulties[at])].append(cost)
        self._of_skill = {skill: _mean(costs) for skill, costs in of_skill.items()}
        self._of_level = {level: _mean(costs) for level, costs in of_level.items()}
        self._mean = _mean([*tokens.values()])

    def of_skill(self, skill: str) -> Fraction:
        """Of a row drawn from the skill's pool items; the pool's mean where it has none."""
        return self._of_skill.get(skill, self._mean)

    def of_plan(self, plan: RoundPlan) -> Fraction:
        """Of all new rows of a plan, as expected."""
        total = Fraction(0)
        for part in plan.skills:
            total += part.pool_rows * self.of_skill(part.skill)
            for level, rows in part.written_rows.items():
                total += rows * self._of_level.get((part.skill, level), self.of_skill(part.skill))
        return total


def _mean(values: Sequence[int]) -> Fraction:
    return Fraction(sum(values), len(values)) if values else Fraction(0)


def token_budget(config: Config, lengths: Lengths) -> int:
    """The tokens every training of a bench gets: what `plan.rows_per_round` rows, even over the pool's skills, cost."""
    skills = sorted(lengths.pool.members)
    mean = sum((lengths.of_skill(skill) for skill in skills), Fraction(0)) / len(skills)
    return round(config.plan.rows_per_round * mean)

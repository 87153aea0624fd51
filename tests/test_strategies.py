"""What each strategy makes of the same profile and pool, and that all get the same tokens."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.allocation import Measurement
from curriculum.config import Config, load_config
from curriculum.difficulty import BINS
from curriculum.difficulty_records import Bin
from curriculum.errors import UserError
from curriculum.mixture import Pool, index_pool
from curriculum.records import Skill, SkillCatalogue, content_id
from curriculum.round_records import MissingSkillProfile, RoundPlan, SkillProfile, TrainingRow, VerdictCounts
from curriculum.row_lengths import Lengths
from curriculum.statistics import wilson
from curriculum.strategies import (
    SHORTER,
    STRATEGIES,
    Materials,
    Strategy,
    control_of,
    cut_to_budget,
    parse_strategies,
    strategy_config,
    strategy_plan,
    strategy_pool,
)

CONFIG = """\
data:
  kind: reasoning_gym
  per_task: 10
  tasks: {gcd: [{difficulty: 1}], lcm: [{difficulty: 1}], chain_sum: [{difficulty: 1}]}
  splits: {probe: 3, gate: 3, final: 3}
plan: {rows_per_round: 60, uniform_floor: 0.1}
"""
RIGHT = {"chain_sum": 18, "gcd": 10, "lcm": 1}
"""Of 20 probe answers each, all of them parsed."""
LEVELS = {1: 40, 2: 30, 3: 20, 4: 10}
TOKENS = {"chain_sum": 50, "gcd": 100, "lcm": 200}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(CONFIG)
    return load_config(path)


def make_pool() -> Pool:
    return index_pool(
        (f"{skill}-{level}-{at}", (skill,), level) for skill in RIGHT for level, n in LEVELS.items() for at in range(n)
    )


BY_LEVEL: dict[str, Bin] = {
    id_: "easy" if level == 1 else "middle" if level == 2 else "hard"
    for id_, level in zip(make_pool().ids, make_pool().difficulties.tolist(), strict=True)
}


def make_profile() -> MissingSkillProfile:
    def part(skill: str, right: int, difficulty: int | None) -> SkillProfile:
        counts = VerdictCounts(correct=right, wrong=20 - right)
        return SkillProfile(
            skill=skill, difficulty=difficulty, counts=counts, missing=20 - right, accuracy=wilson(right, 20)
        )

    return MissingSkillProfile(
        round=1,
        adapter="base",
        overall=wilson(sum(RIGHT.values()), 60),
        counts=VerdictCounts(correct=sum(RIGHT.values()), wrong=60 - sum(RIGHT.values())),
        skills=tuple(part(skill, right, None) for skill, right in sorted(RIGHT.items())),
        cells=tuple(part(skill, right, 2) for skill, right in sorted(RIGHT.items())),
    )


def materials(config: Config) -> Materials:
    pool = make_pool()
    skills = tuple(Skill(id=s, name=s, writable=True) for s in sorted(RIGHT))
    return Materials(
        config,
        [Measurement(make_profile(), {})],
        SkillCatalogue(teacher="offline", skills=skills),
        pool,
        dict.fromkeys(RIGHT, (1, 2)),
        {id_: TOKENS[id_.split("-")[0]] for id_ in pool.ids},
        bins=BY_LEVEL,
    )


def shares(plan: RoundPlan) -> dict[str, float]:
    return {part.skill: part.share for part in plan.skills}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("uniform_again", [1 / 3, 1 / 3, 1 / 3]),
        ("easy", [1 / 3, 1 / 3, 1 / 3]),
        ("middle", [1 / 3, 1 / 3, 1 / 3]),
        ("hard", [1 / 3, 1 / 3, 1 / 3]),
        ("generated_uniform", [1 / 3, 1 / 3, 1 / 3]),
        # In chain_sum, gcd and lcm 2, 10 and 19 of 31 failures; p(1 − p) of 36, 100 and 19 of 155 (in 400ths).
        ("stat_sel", [0.9 * 2 / 31 + 0.1 / 3, 0.9 * 10 / 31 + 0.1 / 3, 0.9 * 19 / 31 + 0.1 / 3]),
        ("stat_syn", [0.9 * 2 / 31 + 0.1 / 3, 0.9 * 10 / 31 + 0.1 / 3, 0.9 * 19 / 31 + 0.1 / 3]),
        ("learnability", [0.9 * 36 / 155 + 0.1 / 3, 0.9 * 100 / 155 + 0.1 / 3, 0.9 * 19 / 155 + 0.1 / 3]),
    ],
)
def test_shares(config: Config, strategy: Strategy, expected: list[float]) -> None:
    plan = strategy_plan(strategy, 1, materials(config))
    assert list(shares(plan).values()) == pytest.approx(expected)
    written = strategy in ("stat_syn", "generated_uniform")
    assert plan.written_rows == (plan.new_rows if written else 0)


def test_expected_gain_with_one_measurement_follows_headroom(config: Config) -> None:
    by_gain = shares(strategy_plan("ega", 1, materials(config)))
    assert by_gain["lcm"] > by_gain["gcd"] > by_gain["chain_sum"] > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_are_planned_for_a_tenth_more_than_the_tokens(config: Config, strategy: Strategy) -> None:
    of = materials(config)
    assert of.budget == 60 * (50 + 100 + 200) / 3
    plan = strategy_plan(strategy, 1, of)
    expected = Lengths(of.pool, of.tokens).of_plan(plan)
    shorter = SHORTER.get(strategy, 1)
    assert 1.08 * of.budget <= expected / shorter <= 1.13 * of.budget


def test_no_two_trainings_share_a_seed_and_the_same_training_keeps_it(config: Config) -> None:
    of = materials(config)
    seeds = [strategy_plan(s, n, of).seed for s in STRATEGIES for n in (1, 2, 3)]
    assert len(set(seeds)) == len(seeds)
    assert strategy_plan("ega", 2, of) == strategy_plan("ega", 2, of)


def test_easy_and_middle_and_hard_rows_are_so_for_the_student() -> None:
    levels = {s: set(strategy_pool(s, make_pool(), bins=BY_LEVEL).difficulties.tolist()) for s in BINS}
    assert levels == {"easy": {1}, "middle": {2}, "hard": {3, 4}}
    pool = make_pool()
    assert strategy_pool("stat_sel", pool) is pool
    with pytest.raises(UserError, match="strategy easy: expected pool items that are so for the student"):
        strategy_pool("easy", pool, bins=dict.fromkeys(BY_LEVEL, "middle"))


def test_everything_but_the_choice_of_rows_is_the_bench_s(config: Config) -> None:
    for strategy in STRATEGIES:
        own = strategy_config(config, strategy)
        assert (own.training, own.student, own.data, own.seed) == (
            config.training,
            config.student,
            config.data,
            config.seed,
        )
        assert own.plan.max_repeats == config.plan.max_repeats
        assert own.rounds == 1 and own.plan.replay_rows is None


def test_controls() -> None:
    assert control_of("uniform", STRATEGIES) is None
    assert control_of("stat_syn", STRATEGIES) == "generated_uniform"
    assert control_of("stat_syn", ["uniform", "stat_syn"]) == "uniform"
    assert {control_of(s, STRATEGIES) for s in ("uniform_again", "hard", "ega", "generated_uniform")} == {"uniform"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ega", ("uniform", "uniform_again", "ega")),
        (" ega, stat_sel,ega ", ("uniform", "uniform_again", "stat_sel", "ega")),
        ("uniform", ("uniform", "uniform_again")),
    ],
)
def test_strategies_are_named_with_commas(text: str, expected: tuple[Strategy, ...]) -> None:
    assert parse_strategies(text) == expected


@pytest.mark.parametrize("text", ["", ",", "ega,nonsense", "EGA", "ega;hard", "\x1b[31m"])
def test_other_names_are_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(UserError, match=r"--arms: expected some of uniform, .*ega") as caught:
        parse_strategies(text)
    assert "\x1b" not in str(caught.value)


def row(skill: str, at: int) -> TrainingRow:
    return TrainingRow(
        id=content_id([skill, at]),
        example_id=f"{skill}{at}",
        round=1,
        origin="pool",
        skill=skill,
        skills=(skill,),
        difficulty=1,
        repeat=0,
        weight=1.0,
        layer="uniform floor",
        question="?",
        target="!",
        source="test",
    )


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 12), min_size=1),
    st.integers(1, 40),
    st.integers(0, 3000),
    st.integers(0, 5),
)
def test_a_cut_is_the_nearest_to_the_budget_and_keeps_the_shares(
    counts: dict[str, int], tokens_each: int, budget: int, seed: int
) -> None:
    rows = [row(skill, at) for skill, n in counts.items() for at in range(n)]
    tokens = {r.id: tokens_each + at % 3 for at, r in enumerate(rows)}
    kept = cut_to_budget(rows, tokens, budget, seed)
    assert kept == sorted(kept, key=lambda r: r.id) and len({r.id for r in kept}) == len(kept)
    assert kept == cut_to_budget(rows[::-1], tokens, budget, seed), "the order of rows does not matter"
    total = sum(tokens[r.id] for r in kept)
    if 1 < len(kept) < len(rows):
        assert abs(total - budget) <= (tokens_each + 2) / 2
    share = len(kept) / len(rows)
    found = Counter(r.skill for r in kept)
    assert all(abs(found[skill] - share * n) <= 1 for skill, n in counts.items())

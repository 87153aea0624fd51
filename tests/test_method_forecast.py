"""What methods add to a forecast: which of them, how many, and minutes by the speed that is known."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import tutelage
from hypothesis import given
from hypothesis import strategies as st
from test_bench import bench
from test_ranking import CONFIG
from test_ranking import write as write_ranked

from agents.bench import Bench
from agents.bench_forecast import bench_forecast, forecast_words
from agents.forecast import forecast, method_minutes
from agents.method_forecast import MethodWork, minutes, plus, pool_items, work_words
from curriculum.config import Config, load_config
from curriculum.strategies import parse_strategies

POOL, PROBE, ROWS, ROUNDS = 3 * 150 - 3 * 60, 60, 60, 2
REWARD = "student.reward={model: reward, base_url: 'http://127.0.0.1:1/v1'}"


def config_of(folder: Path, *settings: str) -> Config:
    return load_config(write_ranked(folder), [*settings])


@pytest.mark.parametrize(
    ("settings", "what", "said", "answers", "rows"),
    [
        (["plan.rank=prism"], "PRISM", "540 pool rows in 2 rounds", 0, (0.9 * 540, 1.1 * 540 + 4 * 120)),
        (["plan.rank=less"], "LESS", "at 4 checkpoints each", 0, (1.2 * 4 * 540, 1.8 * 4 * 540)),
        (["plan.rank=less", "plan.less.epochs=1"], "LESS", "at 1 checkpoint each", 0, (1.2 * 540, 1.8 * 540)),
        (["plan.rank=embed_sel"], "embedding", "540 pool rows", 0, (0.25 * 540, 0.5 * 660)),
        (
            ["training.weights=ica"],
            "ica",
            "180 rows scored once in 2 trainings",
            0,
            (1.25 * 180 + 13.5, 1.8 * 180 + 27),
        ),
        (
            ["training.weights=ica", "training.ica.refresh=3", "control=last_round"],
            "ica",
            "300 rows scored 3 times in 3 trainings",
            0,
            (3.25 * 300 + 20.25, 3 * 1.3 * 300 + 0.5 * 381),
        ),
        (["student.signals={samples: 3}"], "probe", "360", 3 * ROUNDS * PROBE, (0, 0)),
        (["student.difficult=disagreement"], "compared", "600", 5 * ROUNDS * PROBE, (0, 0)),
        (["student.difficult=prm", REWARD], "step scores", "120 answers, their steps", 0, (0, 0)),
    ],
)
def test_every_method_is_a_line_and_in_the_total(
    tmp_path: Path, settings: list[str], what: str, said: str, answers: int, rows: tuple[float, float]
) -> None:
    without, made = forecast(config_of(tmp_path)), forecast(config_of(tmp_path, *settings))
    (work,) = made.methods
    assert without.methods == () and what in work.what and said in work.many
    assert work.answers == answers and work.rows == pytest.approx(rows)
    base, training = (
        forecast(config_of(tmp_path, *[s for s in settings if s.startswith("control")])),
        method_minutes(work),
    )
    assert made.answers == base.answers + answers and made.training_rows == base.training_rows
    if work.unknown:
        assert training is None and made.minutes == base.minutes
    else:
        assert training is not None and training[1] > 0
        assert made.minutes == pytest.approx(plus(base.minutes, training))


def test_answers_to_the_whole_pool_are_counted_each_round(tmp_path: Path) -> None:
    settings = ["student.signals={samples: 3}", "plan.difficulty=adaptive"]
    _, work = forecast(config_of(tmp_path, *settings)).methods
    assert work.what == "answers drawn to the pool (plan.difficulty)" and work.answers == 3 * ROUNDS * POOL


def test_unwanted_rows_are_counted_with_their_pairs_and_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    unwanted = f"plan.unwanted={{pairs: {pairs}}}"
    (missing,) = forecast(config_of(tmp_path, unwanted)).methods
    assert "No such file" in missing.unknown and "not counted" in work_words(missing, None)
    pairs.write_text(json.dumps({"question": "q", "wanted": "a", "unwanted": "b"}) + "\n")
    (work,) = forecast(config_of(tmp_path, unwanted)).methods
    assert work.many == "180 rows of training sets and 2 pairs in 2 rounds"
    assert work.rows == pytest.approx((0.9 * 180 + 3, 1.1 * 180 + 8))


def test_a_pool_of_unknown_size_is_told_and_written_rows_alone_are_not_ranked(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "q", "answer": "1", "skills": ["a"]}\n')
    path = tmp_path / "own.yaml"
    path.write_text(
        f"runs_dir: {tmp_path}\ndata: {{kind: file, path: {rows}, columns: {{question: question, answer: answer, "
        "skills: skills}, grader: numeric, splits: {probe: 5, gate: 60, final: 5}}\n"
        "student: {engine: fake, base: fake}\nplan: {rows_per_round: 9, write_share: 0, rank: prism}\n"
    )
    (work,) = forecast(load_config(path)).methods
    assert "data.splits.pool" in work.unknown and "not counted: give" in work_words(work, None)
    (sized,) = forecast(load_config(path, ["data.splits.pool=40"])).methods
    assert sized.many == "120 pool rows in 3 rounds" and not sized.unknown
    assert forecast(config_of(tmp_path, "plan.rank=prism", "plan.write_share=1")).methods == ()
    assert pool_items(config_of(tmp_path)) == POOL and pool_items(config_of(tmp_path, "data.splits.pool=7")) == 7


def test_profiles_of_an_extra_set_are_counted_in_place_of_the_probes(tmp_path: Path) -> None:
    extra = """\
extra:
  harder:
    {kind: reasoning_gym, per_task: 25, profile_from: PROFILE, tasks: {chain_sum: [{difficulty: 4}]}}
"""
    path = tmp_path / "small.yaml"

    def made(first: int, *settings: str) -> Any:
        path.write_text(CONFIG + extra.replace("PROFILE", str(first)) + f"runs_dir: {tmp_path}\n")
        return forecast(load_config(path, ["rounds=3", *settings]))

    never = made(9)
    assert made(2).answers == never.answers - 2 * PROBE + 2 * 25
    assert made(1).answers == never.answers - 2 * PROBE + 3 * 25, "round 0 is the probe's"
    assert made(2, "plan.rank=less").answers == never.answers + 2 * 25, "a ranking looks at the probe's failures"
    assert "50 answers from round 2 on" in made(2).methods[0].many


def test_the_table_has_the_lines_and_another_student_gets_rows_in_place_of_minutes(tmp_path: Path) -> None:
    path = write_ranked(tmp_path)
    out = tutelage("forecast", path, "--set", "plan.rank=prism", "--set", "student.difficult=prm", "--set", REWARD).out
    words = " ".join(out.replace("│", " ").split())
    assert "ranking by PRISM" in words and "540 pool rows" in words and "without step scores" in words
    out = tutelage("forecast", path, "--set", "plan.rank=prism", "--set", "student.base=other/model").out
    assert "rows through training" in " ".join(out.replace("│", " ").split())


@given(
    st.integers(0, 10_000),
    st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)).map(lambda pair: (min(pair), max(pair))),
    st.integers(0, 9),
)
def test_minutes_are_a_range_that_grows_with_the_work(answers: int, rows: tuple[float, float], starts: int) -> None:
    def took(times: int) -> tuple[float, float]:
        work = MethodWork("x", "y", times * answers, (times * rows[0], times * rows[1]), times * starts)
        made = minutes(work, (2.0, 4.0), (1.0, 8.0), (3.0, 5.0))
        assert made is not None
        return made

    assert took(1)[0] <= took(1)[1]
    assert took(3) == pytest.approx(plus(took(1), took(1), took(1)))
    assert took(1)[1] == pytest.approx((answers / 2 + rows[1] + 5 * starts) / 60)
    own = MethodWork("x", "y", answers, rows, starts, seconds=(60.0, 90.0))
    assert minutes(own, (2.0, 4.0), (1.0, 8.0), (3.0, 5.0)) == (1.0, 1.5), "what was measured holds"


# The bench


def test_a_bench_ranks_once_a_strategy_and_weighs_once_a_training(tmp_path: Path) -> None:
    config = config_of(tmp_path, "student.signals={samples: 4}", "bench.warm_up_rows=20")
    arms = parse_strategies("prism,ica,easy")
    made = bench_forecast(config, Bench(arms, 3), tmp_path / "none")
    said = dict(made.methods)
    assert f"{POOL} pool rows:" in said["ranking by PRISM"], "one ranking for three seeds"
    assert (
        f"{3 * (ROWS + 20)} rows scored once in 3 trainings" in said["in-context weights (training.weights: ica), ica"]
    )
    assert made.answers == 2 * PROBE + 60 + 15 * 60 + 4 * (2 * PROBE + POOL)
    plain = bench_forecast(
        config_of(tmp_path, "bench.warm_up_rows=20"), Bench(parse_strategies("ega,stat_sel,hard"), 3), tmp_path
    )
    assert made.minutes is not None and plain.minutes is not None and made.minutes[1] > plain.minutes[1]
    assert any(line.startswith("ranking by PRISM: at most") for line in forecast_words(config, Bench(arms, 3), made))


def test_a_ranking_that_is_there_is_not_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_bench.write", write_ranked)
    arms = parse_strategies("prism")
    bench(tmp_path, arms, 1)
    config = load_config(tmp_path / "small.yaml")
    assert bench_forecast(config, Bench(arms, 2), tmp_path / "bench").methods == ()
    more = bench_forecast(config, Bench(parse_strategies("prism,less,ica"), 1), tmp_path / "bench")
    assert [what for what, _ in more.methods] == [
        "ranking by LESS",
        "in-context weights (training.weights: ica), ica",
    ]
    assert more.finished == 3 and more.measured


# A round


def test_a_proposal_forecasts_the_round_s_methods_by_this_run_s_own_rates(tmp_path: Path) -> None:
    path = write_ranked(tmp_path)
    settings = ["plan.rank=prism", "training.weights=ica", "plan.approve=true"]
    done = tutelage("run", path, "--name", "run", *[word for s in settings for word in ("--set", s)])
    assert done.code == 0, done.err
    run = tmp_path / "run"

    def methods(round_: int) -> list[dict[str, Any]]:
        shown = json.loads((run / f"round_{round_:02d}" / "proposal.json").read_text())
        found: list[dict[str, Any]] = shown["forecast"]["methods"]
        return found

    assert [m["what"] for m in methods(1)] == [
        "ranking by PRISM (plan.rank)",
        "in-context weights (training.weights: ica)",
    ]
    assert all(m["minutes"] is not None for m in methods(1))
    assert "Of the time, ranking by PRISM" in (run / "round_01" / "plan.html").read_text()
    assert tutelage("approve", run, "--by", "me", "--reason", "fine").code == 0
    timing = run / "round_01" / "rank" / "timing.json"
    assert tutelage("resume", run).code == 0
    facts = json.loads((timing.parent / "ranking.json").read_text())
    timing.write_text(json.dumps({"seconds": 120.0}))
    from agents.progress import ProgressPrinter
    from agents.round_forecast import round_forecast
    from agents.session import open_loop, open_run
    from curriculum.plan_file import PROPOSED, read_proposed

    folder, config = open_run(run)
    with folder, open_loop(folder, config, ProgressPrinter()) as loop:
        plan = read_proposed(folder.round_stage(2, "plan") / PROPOSED)
        ranking = round_forecast(loop, plan).methods[0]
    ranked = int(ranking.many.split()[2].replace(",", ""))
    assert ranking.minutes == pytest.approx((2 * ranked / facts["scored"],) * 2, abs=0.01)


def test_an_unknown_method_s_words_say_so() -> None:
    assert work_words(MethodWork("x", "3 rows", unknown="why"), None) == "at most 3 rows; time not counted: why"
    assert work_words(MethodWork("x", "3 rows", rows=(2, 4)), (0.1, 0.3)) == "at most 3 rows: less than a minute"

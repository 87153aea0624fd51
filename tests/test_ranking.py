"""Which failures a ranking uses, in which form, and what ranks do to draws, rows, reports and whole loops."""

import json
import random
import signal
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import grade, student_answer, training_row
from test_bench import bench, rows
from test_bench import write as write_bench
from tiny_model import make_tiny_model
from typer.testing import CliRunner

from agents.cli import app
from curriculum.config import load_config
from curriculum.errors import UserError
from curriculum.mixture import deal, draw_pool, index_pool
from curriculum.plan_config import LessConfig
from curriculum.ranking import (
    Failures,
    RankedExample,
    nearness,
    planned_items,
    probe_failures,
    rank_cells,
    require_failures,
    same_form,
    why_not_ranked,
    with_standings,
)
from curriculum.records import Example, Grade, Message, Verdict
from curriculum.report import RunReport
from curriculum.report_ranking import ranking_words
from curriculum.round_records import RoundPlan, SkillPlan, TrainingRow
from curriculum.rundir import read_records
from curriculum.strategies import cut_to_budget, parse_strategies
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.fakes import FakeStudent
from student.interface import AdapterFiles, Influence, Progress, Prompt, Target, TrainingSettings
from student.local import LocalStudent

CONFIG = """\
data:
  kind: reasoning_gym
  per_task: 150
  tasks:
    chain_sum: [{difficulty: 1, params: {min_terms: 2, max_terms: 2, max_digits: 1}}]
    spell_backward: [{difficulty: 1}]
    word_sequence_reversal: [{difficulty: 2}]
  splits: {probe: 60, gate: 60, final: 60}
student: {engine: fake, base: fake, max_new_tokens: 8}
plan: {rows_per_round: 60, write_share: 0.3}
training: {epochs: 2}
rounds: 2
"""
"""The fake's wrong answers can be read where any word is an answer, and not where a number is."""
CELLS = ("chain_sum", "spell_backward", "word_sequence_reversal")


def write(folder: Path) -> Path:
    return write_bench(folder, CONFIG)


@pytest.mark.parametrize(
    ("text", "extracted", "gold", "right", "wrong"),
    [
        ("Answer: 12", "12", "19", "Answer: 19", "Answer: 12"),
        ("12 and 7 are 12.", "12", "19", "12 and 7 are 19.", "12 and 7 are 12."),
        ("It is 5, so 5.5 or 0.5", "5", "6", "It is 6, so 5.5 or 0.5", "It is 5, so 5.5 or 0.5"),
        ("(B) Because", "B", "C", "(C) Because", "(B) Because"),
        ("so 1,234", "1234", "7", "Answer: 7", "Answer: 1234"),
        (r"\frac{1}{2}", r"\frac{1}{2}", r"\1", r"\1", r"\frac{1}{2}"),
        ("no idea", None, "7", "Answer: 7", "no idea"),
        ("", "", "7", "Answer: 7", "Answer: "),
    ],
)
def test_right_and_wrong_differ_in_the_answer_alone(text, extracted, gold, right, wrong):
    assert same_form(text, extracted, gold) == (right, wrong)


def example(question: str, gold: str) -> Example:
    return Example.make(question=question, gold=gold, grader="exact", source="test")


def graded(verdict: Verdict, text: str, extracted: str | None, gold: str = "7"):
    made = example(f"{verdict.value} {text}", gold)
    return made, student_answer(made, text), grade(made.id, "base", verdict).model_copy(update={"extracted": extracted})


PROBE = [
    graded(Verdict.CORRECT, "Answer: 7", "7"),
    graded(Verdict.WRONG, "Answer: 8", "8"),
    graded(Verdict.WRONG, "Answer: 7", "7"),  # spelt as the gold, and yet wrong
    graded(Verdict.UNPARSED, "hm", None),
    graded(Verdict.TRUNCATED, "so then", None),
    graded(Verdict.FAILED, "", None),
]


def failures(method, probe=PROBE) -> Failures:
    examples = {e.id: e for e, _, _ in probe}
    return probe_failures(examples, [a for _, a, _ in probe], [g for *_, g in probe], method)


def test_prism_takes_wrong_answers_that_could_be_read_and_says_what_it_left_out():
    found = failures("prism")
    assert [(f.right, f.wrong) for f in found.used] == [("Answer: 7", "Answer: 8")]
    assert found.left_out == {
        "failed on our side": 1,
        "the wrong answer is spelt as the right one": 1,
        "truncated": 1,
        "unparsed": 1,
    }


@pytest.mark.parametrize("method", ["less", "embed_sel"])
def test_the_others_take_every_failure_of_the_student(method):
    found = failures(method)
    assert [f.right for f in found.used] == ["Answer: 7"] * 4
    assert all(f.wrong is None for f in found.used) and found.left_out == {"failed on our side": 1}


def test_a_bench_s_ranking_without_failures_is_refused_with_what_to_do():
    with pytest.raises(UserError, match=r"could be read \(1 truncated, 1 unparsed\).*bench\.warm_up_rows=N"):
        require_failures(failures("prism", PROBE[3:5]), "prism", "strategy prism")
    with pytest.raises(UserError, match=r"strategy less: .*every answer to the probe was right"):
        require_failures(failures("less", PROBE[:1]), "less", "strategy less")
    assert require_failures(failures("prism"), "prism", "") == failures("prism").used


def test_why_nothing_is_ranked_is_said_only_where_nothing_is():
    assert why_not_ranked(failures("prism"), "prism") is None
    assert why_not_ranked(failures("less", PROBE[5:]), "less") == (
        "no failure on the probe can be used (1 failed on our side)"
    )


def test_nearness_is_the_cosine_with_the_nearest_failure():
    made = nearness(np.array([[1, 0], [0, 2]], np.float32), np.array([[3, 0], [1, 1], [-1, 0], [0, 0]], np.float32))
    assert made == pytest.approx([1, 0.5**0.5, 0, 0], abs=1e-6)


POOL = index_pool([(f"a{at}", ("add",), 1) for at in range(6)] + [("b", ("add", "sort"), 1), ("c", ("sort",), 2)])
SCORES = {f"a{at}": float(at) for at in range(6)} | {"b": 2.5}


def plan(**pool_rows: int) -> RoundPlan:
    parts = [
        SkillPlan(skill=s, missing=1, share=0.5, pool_rows=n, written_rows={}, reason="") for s, n in pool_rows.items()
    ]
    return RoundPlan(round=1, action="train", skills=tuple(parts), learning_rate=1e-3, epochs=1, seed=4)


def test_a_turn_that_is_partial_goes_to_the_best_and_whole_turns_to_all():
    assert Counter({d.example_id: d.rows for d in draw_pool(plan(add=3), POOL, {}, 4, SCORES).draws}) == {
        "a5": 1,
        "a4": 1,
        "a3": 1,
    }
    more = {d.example_id: d.rows for d in draw_pool(plan(add=9), POOL, {}, 4, SCORES).draws}
    assert more == {"a5": 2, "a4": 2, **dict.fromkeys(["a0", "a1", "a2", "a3", "b"], 1)}
    used = {d.example_id for d in draw_pool(plan(add=2), POOL, {"a5": 4}, 4, SCORES).draws}
    assert used == {"a4", "a3"}, "one that was used up is passed over"
    assert {d.example_id for d in draw_pool(plan(sort=1), POOL, {}, 4, SCORES).draws} == {"b"}, "no score comes last"


def test_without_scores_draws_are_as_they_were():
    room = np.full(8, 2)
    assert deal(np.arange(8), 3, room.copy(), random.Random(1)) == Counter(random.Random(1).sample(range(8), 3))


@given(st.integers(0, 40), st.lists(st.floats(-5, 5), min_size=8, max_size=8), st.integers(0, 9))
def test_by_score_no_item_has_more_rows_than_a_better_one(count, scores, seed):
    by = np.array(scores)
    dealt = deal(np.arange(8), count, np.full(8, 3), random.Random(seed), by)
    assert dealt.total() == min(count, 24)
    for one in range(8):
        for other in range(8):
            assert dealt[one] >= dealt[other] or by[one] <= by[other]


def test_ranks_are_inside_a_skill_and_items_without_a_score_come_last():
    ranked = rank_cells(POOL, planned_items(plan(add=1, sort=1), POOL), SCORES)
    assert [(r.example_id, r.rank) for r in ranked if r.skill == "add"][:4] == [
        ("a5", 1),
        ("a4", 2),
        ("a3", 3),
        ("b", 4),
    ]
    assert [(r.example_id, r.score, r.standing) for r in ranked if r.skill == "sort"] == [("b", 2.5, 1), ("c", None, 0)]
    assert planned_items(plan(sort=1, add=0), POOL) == ["b", "c"] and planned_items(plan(other=3), POOL) == []
    alone = RankedExample(example_id="x", skill="add", score=1, rank=1, of=1)
    assert alone.standing == 1


def test_rows_say_where_they_stand():
    ranked = rank_cells(POOL, POOL.ids, SCORES)
    given_rows = [
        training_row(example_id="a5", skill="add", layer="uniform floor"),
        training_row(example_id="a0", skill="add"),
        training_row(example_id="a5", skill="add", origin="replay", layer="replay"),
        training_row(example_id="a5", skill="add", origin="written"),
    ]
    assert [r.layer for r in with_standings(given_rows, ranked, "prism", 1)] == [
        "uniform floor; PRISM 1.00, rank 1 of 7",
        "missing skill share; PRISM 0.00, rank 7 of 7",
        "replay",
        "missing skill share",
    ]


def test_a_cut_to_a_budget_keeps_the_best_rows():
    made = [training_row(id=f"r{at}", example_id=f"a{at}") for at in range(6)]
    kept = cut_to_budget(made, {r.id: 10 for r in made}, 30, seed=1, scores=SCORES)
    assert {r.example_id for r in kept} == {"a5", "a4", "a3"}


# The worker, on a tiny random model that is taught a wrong answer first.

QUESTIONS = ["What is 12 plus 7?", "Solve the problem.", "yes no", "x"]


def prompt(id_: str, question: str) -> Prompt:
    return Prompt(id_, "plain", (Message(role="user", content=question),))


def test_the_real_student_ranks_what_teaches_the_right_answer_above_what_teaches_the_wrong_one(tmp_path: Path):
    training = TrainingConfig(rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_tokens=128, max_length=64)
    config = StudentConfig(base=str(make_tiny_model(tmp_path / "tiny")), dtype="float32", threads=1)
    candidates = [
        (prompt("right", QUESTIONS[0]), ["Answer: 19"]),
        (prompt("wrong", QUESTIONS[0]), ["Answer: red"]),
        (prompt("other", QUESTIONS[2]), ["true"]),
        (prompt("too long", "x" * 500), ["true"]),
        (prompt("second fits", QUESTIONS[3]), ["x" * 500, "false"]),
    ]
    targets = [Target(prompt("t", QUESTIONS[0]), "Answer: 19", "Answer: red", ("add",))]
    less = LessConfig(warm_up_share=1, epochs=2)
    told: list[Progress] = []
    with closing(LocalStudent(config, training, "")) as student:
        start = tmp_path / "start"
        taught = [training_row(id=str(at), question=q, target="Answer: red") for at, q in enumerate(QUESTIONS)]
        student.train(taught, TrainingSettings(1e-2, 2, 0, None), start, tmp_path / "log", lambda _: None)

        def scores(method: Literal["prism", "less"], folder: Path | None, wanted: list[Target]) -> dict[str, float]:
            how, adapter = Influence(method, "pi", less, 3), AdapterFiles("x", folder)
            return student.influence(candidates, wanted, how, adapter, tmp_path / "log", told.append)

        prism, fresh = scores("prism", start, targets), scores("prism", None, targets)
        assert told[-1].done == told[-1].total == 4
        assert scores("prism", start, targets) == prism
        by_less = scores("less", start, targets)
        assert told[-1].done == told[-1].total == 8, "after each epoch of the warm-up"
        unwanted = scores("prism", start, [Target(t.prompt, t.wrong or "", t.right, t.skills) for t in targets])
        with pytest.raises(UserError, match=r"expected failures of at most training\.max_length"):
            scores("prism", None, [Target(prompt("t", "x" * 500), "a", "b", ("add",))])
    for by_id in (prism, fresh, by_less):
        assert by_id.keys() == {"right", "wrong", "other", "second fits"}
        assert max(by_id, key=by_id.__getitem__) == "right" and by_id["right"] > by_id["wrong"]
    assert max(unwanted, key=unwanted.__getitem__) == "wrong", "with the pairs turned round it finds what does harm"


# Whole loops, with the fake student.


def test_arms_rank_inside_a_skill_and_share_one_ranking(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("test_bench.write", write)
    made = bench(tmp_path, parse_strategies("prism,less,embed_sel"), seeds=2)
    assert made.status == "finished" and made.trainings == 10
    folder = tmp_path / "bench"
    ranks = sorted(p.parent.name for p in folder.rglob("scores.jsonl"))
    assert ranks == ["rank_embed_sel", "rank_less", "rank_prism"]
    for arm in ("prism", "less", "embed_sel"):
        ranked = read_records(folder / "round_00" / f"rank_{arm}" / "scores.jsonl", RankedExample)
        places = {(r.example_id, r.skill): r for r in ranked}
        scores = {s: sorted((r.score or 0 for r in ranked if r.skill == s), reverse=True) for s in CELLS}
        for seed in (1, 2):
            drawn = rows(folder, f"{arm}-{seed}")
            counts = Counter(r.skill for r in drawn)
            assert max(counts.values()) - min(counts.values()) <= 1, "even over the skills"
            for row in drawn:
                place = places[row.example_id, row.skill]
                assert place.score is not None and place.score >= scores[row.skill][counts[row.skill] - 1], "the best"
                assert f"rank {place.rank} of {place.of}" in row.layer
    assert {r.layer for r in rows(folder, "uniform-1")} == {"uniform floor"}


def test_a_run_ranks_its_pool_rows_every_round_and_the_report_says_so(tmp_path: Path):
    done = CliRunner().invoke(app, ["run", str(write(tmp_path)), "--name", "run", "--set", "plan.rank=prism"])
    assert done.exit_code == 0, done.output
    run = tmp_path / "run"
    report = RunReport.model_validate_json((run / "report.json").read_text())
    facts = report.rounds[1].ranking
    assert facts is not None and facts.method == "prism" and facts.weight == "pi" and facts.adapter == "base"
    assert facts.standing is not None and facts.standing > 0.7 and facts.rows > 0 and facts.scored > 0
    said = ranking_words(report.rounds[1])
    assert (
        "PRISM" in said
        and f"{facts.failures} failed probe answers of base" in said
        and "left out: " in said
        and "unparsed" in said
    )
    assert said[:40] in (run / "report.html").read_text() and said[:40] in (run / "report.md").read_text()
    training_set = [
        json.loads(line) for line in (run / "round_01" / "build" / "training_set.jsonl").read_text().splitlines()
    ]
    assert all(("PRISM" in r["layer"]) == (r["origin"] == "pool") for r in training_set)
    assert report.rounds[0].ranking is None


def ranked_run(folder: Path, method: str) -> tuple[dict[str, Example], dict[str, RankedExample], set[str]]:
    """A run of one round: examples and rankings by id, and the probe items that were answered wrongly."""
    settings = ("--set", f"plan.rank={method}", "--set", "rounds=1")
    done = CliRunner().invoke(app, ["run", str(write(folder)), "--name", "run", *settings])
    assert done.exit_code == 0, done.output
    run = folder / "run"
    (file,) = run.rglob("examples.jsonl")
    grades = read_records(run / "answers" / "base" / "probe" / "grades.jsonl", Grade)
    ranked = read_records(run / "round_01" / "rank" / "scores.jsonl", RankedExample)
    failed = {g.example_id for g in grades if g.verdict not in (Verdict.CORRECT, Verdict.FAILED)}
    return {e.id: e for e in read_records(file, Example)}, {r.example_id: r for r in ranked}, failed


def test_what_is_compared_with_are_the_probes_failures_with_gold_as_the_right_answer(tmp_path: Path, monkeypatch):
    heard: list[Target] = []
    ranked = FakeStudent.influence

    def listening(self, candidates, targets, *more):
        heard.extend(targets)
        return ranked(self, candidates, targets, *more)

    monkeypatch.setattr(FakeStudent, "influence", listening)
    examples, _, failed = ranked_run(tmp_path, "prism")
    assert heard and {t.prompt.example_id for t in heard} <= failed
    for target in heard:
        example = examples[target.prompt.example_id]
        assert example.split == "probe" and target.prompt.messages[-1].content == example.question
        assert target.wrong is not None and example.gold in target.right and example.gold not in target.wrong


def test_embedding_scores_are_cosines_with_the_nearest_failure_of_the_probe(tmp_path: Path, monkeypatch):
    vectors: dict[str, np.ndarray] = {}
    embedded = FakeStudent.embed

    def listening(self, prompts, *more):
        made = embedded(self, prompts, *more)
        vectors.update((p.example_id, v / np.linalg.norm(v)) for p, v in zip(prompts, made, strict=True))
        return made

    monkeypatch.setattr(FakeStudent, "embed", listening)
    examples, ranked, failed = ranked_run(tmp_path, "embed_sel")
    assert {id_ for id_ in vectors if examples[id_].split == "probe"} == failed
    assert ranked and {examples[id_].split for id_ in ranked} == {"pool"}
    for id_, place in ranked.items():
        assert place.score == pytest.approx(max(float(vectors[id_] @ vectors[f]) for f in failed), abs=1e-5)


def test_a_stop_is_heard_while_the_pool_is_ranked_and_the_run_goes_on(tmp_path: Path, monkeypatch):
    ranked = FakeStudent.influence

    def stopped(self, *args):
        signal.raise_signal(signal.SIGINT)
        return ranked(self, *args)

    monkeypatch.setattr(FakeStudent, "influence", stopped)
    done = CliRunner().invoke(app, ["run", str(write(tmp_path)), "--name", "run", "--set", "plan.rank=prism"])
    assert done.exit_code == 130, done.output
    assert not (tmp_path / "run" / "round_01" / "rank" / "done.json").exists()
    monkeypatch.undo()
    assert CliRunner().invoke(app, ["resume", str(tmp_path / "run")]).exit_code == 0


UNREAD = {"unparsed": 9}


def test_a_round_without_an_answer_that_can_be_read_draws_at_random_and_says_so(tmp_path: Path, monkeypatch):
    read = probe_failures
    monkeypatch.setattr(
        "agents.ranking.probe_failures",
        lambda examples, answers, *of: (
            Failures([], UNREAD) if answers[0].adapter == "base" else read(examples, answers, *of)
        ),
    )
    config, settings = write(tmp_path), ["--set", "plan.rank=prism", "--set", "plan.patience=9"]
    done = CliRunner().invoke(app, ["run", str(config), "--name", "run", *settings])
    assert done.exit_code == 0, done.output
    run = tmp_path / "run"
    report = RunReport.model_validate_json((run / "report.json").read_text())
    facts = report.rounds[1].ranking
    assert facts is not None and facts.not_ranked is not None and facts.standing is None
    assert (facts.failures, facts.scored, facts.too_long) == (0, 0, 0) and facts.rows > 0
    said = ranking_words(report.rounds[1])
    assert said.startswith(f"Within each skill, the {facts.rows} pool rows were drawn at random: PRISM had nothing")
    assert said[:60] in (run / "report.html").read_text() and said[:60] in (run / "report.md").read_text()

    other = CliRunner().invoke(app, ["run", str(config), "--name", "other", "--set", "rounds=1"])
    assert other.exit_code == 0, other.output
    ranked, by_chance = (taught_in(tmp_path / name, 1) for name in ("run", "other"))
    assert [r.id for r in ranked] == [r.id for r in by_chance], "the same rows as without a ranking"
    assert all(r.layer.endswith("; at random, not by PRISM") == (r.origin == "pool") for r in ranked)
    second = report.rounds[2].ranking
    if second is not None and second.adapter != "base":  # the first round was accepted
        assert second.not_ranked is None and second.scored > 0


def taught_in(run: Path, round_: int) -> list[TrainingRow]:
    return read_records(run / f"round_{round_:02d}" / "build" / "training_set.jsonl", TrainingRow)


def test_a_proposed_plan_says_that_nothing_will_rank_it_and_shows_the_rows_it_draws(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("agents.ranking.probe_failures", lambda *_: Failures([], UNREAD))
    settings = ["--set", "plan.rank=less", "--set", "plan.approve=true"]
    done = CliRunner().invoke(app, ["run", str(write(tmp_path)), "--name", "run", *settings])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "run" / "round_01" / "plan.html").read_text()
    assert "drawn at random, not by plan.rank less: no failure on the probe can be used (9 unparsed)" in page
    proposal = json.loads((tmp_path / "run" / "round_01" / "proposal.json").read_text())
    assert proposal["forecast"]["methods"] == [] and "approved unchanged, they are taught as shown" in page


def test_a_bench_does_not_call_random_rows_ranked(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("agents.ranking.probe_failures", lambda *_: Failures([], UNREAD))
    args = ["bench", str(write(tmp_path)), "--arms", "prism", "--seeds", "1", "--name", "b"]
    done = CliRunner().invoke(app, args)
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and "strategy prism: expected failures" in said and "bench.warm_up_rows=N" in said


@pytest.mark.parametrize(
    "setting", ["plan.rank=nonsense", "plan.prism_weight=2-pi", "plan.less.warm_up_share=0", "plan.less.dimensions=0"]
)
def test_settings_that_mean_nothing_are_refused(setting, tmp_path: Path):
    with pytest.raises(Exception, match=setting.split("=")[0].removeprefix("plan.").split(".")[-1]):
        load_config(write(tmp_path), [setting])

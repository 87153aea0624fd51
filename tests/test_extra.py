"""Extra evaluation sets: read and graded like other items, apart from every split, and seen by nothing that decides."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from command import canonical_files, tutelage, write_config
from samples import training_row
from test_splits import SIZES, make, word

from agents.forecast import forecast
from agents.fork import fork_run
from agents.graph import run_plain
from agents.prepare import prepare
from agents.progress import ProgressPrinter
from agents.session import check_grader_trusted, create_run, open_loop, open_run
from curriculum.config import load_config
from curriculum.errors import ConfigError, DataError, LeakError, RunDirError, UserError
from curriculum.rundir import read_json, read_records
from curriculum.splits import DroppedExample, assert_no_leak, split_examples, with_extra

COLUMNS = {"question": "q", "answer": "a"}


def config_of(folder, rows, name="run", **keys):
    """A config of 80 rows with an extra set `ood` of the given (question, answer) rows."""
    lines = [{"question": f"What is {n} plus {n}?", "gold": str(2 * n), "skills": [f"s{n % 3}"]} for n in range(10, 90)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (folder / "ood.jsonl").write_text("".join(json.dumps({"q": q, "a": a}) + "\n" for q, a in rows))
    splits = {"probe": 9, "gate": 24, "final": 9}
    ood = {"kind": "file", "path": str(folder / "ood.jsonl"), "columns": COLUMNS, "items": 5}
    tree = {
        "rounds": 1,
        "data": {"kind": "file", "path": str(folder / "data.jsonl"), "format": "examples", "splits": splits},
        "runs_dir": str(folder / "runs"),
        "plan": {"rows_per_round": 120, "write_share": 0},
        "student": {"engine": "fake", "base": "fake"},
        "gate": {"retrain_sd": 0.0},
        "extra": {"ood": ood | keys} if rows else {},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@contextmanager
def loop_of(path):
    config = load_config(path)
    with open_loop(create_run(config, path, path.stem), config, ProgressPrinter()) as loop:
        yield loop


FAR = [(f"Spell the word number {n} of the list.", word(n)) for n in range(20)]


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ("{Far: &s {kind: file, path: x, format: gsm8k, items: 4}}", "`extra.Far`"),
        ("{../far: {kind: file, path: x, format: gsm8k, items: 4}}", "`extra.../far`"),
        ("{a_few_shot: {kind: file, path: x, format: gsm8k, items: 4}}", "`extra.a_few_shot`"),
        ('{"a\\n": {kind: file, path: x, format: gsm8k, items: 4}}', "`extra.a\n`"),
        ("{" + "a" * 41 + ": {kind: file, path: x, format: gsm8k, items: 4}}", "should match pattern"),
        ("{far: {kind: file, path: x, format: gsm8k}}", "key `extra.far.items` is missing"),
        ("{far: {kind: file, path: x, format: gsm8k, items: 0}}", "`extra.far.items`"),
        ("{file: {kind: file, path: x, format: gsm8k, items: 0}}", "`extra.file.items`"),
        ("{far: {kind: file, path: x, format: gsm8k, items: 4, splits: {gate: 4}}}", "unknown key `extra.far.splits`"),
        ("{far: {kind: reasoning_gym, tasks: {}, per_task: 4}}", "`extra.far.tasks`"),
        ("{far: {kind: file, path: x, hub: {name: a/b}, format: gsm8k, items: 4}}", "`path` and `hub`"),
    ],
)
def test_faulty_sets_are_faults_of_the_config(tmp_path, extra, fault):
    path = write_config(tmp_path, extra=f"extra: {extra}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert fault in str(caught.value)


def test_sets_are_part_of_the_identity_and_of_the_forecast(tmp_path):
    with_set, without = (load_config(config_of(tmp_path, rows, name)) for rows, name in ((FAR, "a"), ([], "b")))
    assert with_set.identity_hash != without.identity_hash
    assert forecast(with_set).answers == forecast(without).answers + 3 * 5
    assert forecast(with_set).disk_bytes > forecast(without).disk_bytes
    generated = load_config(
        write_config(
            tmp_path, extra="extra: {far: {kind: reasoning_gym, tasks: {gcd: [{difficulty: 1}]}, per_task: 7}}\n"
        )
    )
    assert forecast(generated).answers == forecast(load_config(write_config(tmp_path))).answers + 3 * 7


def test_items_repeat_no_split_no_set_and_no_pool_row():
    result = split_examples([make(f"How many {word(n)} are there?", n) for n in range(90)], SIZES, 0)
    of = {split: [e for e in result.examples if e.split == split] for split in ("pool", "probe", "gate", "final")}
    near_pool = "How many, please, " + of["pool"][0].question.removeprefix("How many ")
    fresh = [make(f"Name {word(n)} twice.", n) for n in range(8)]
    sets = {
        "b": [make(of["pool"][1].question.upper()), make(near_pool), make(of["gate"][0].question), *fresh[:4]],
        "a": [fresh[0], make(fresh[0].question.upper(), 7), make(of["final"][0].question, 1), *fresh[4:]],
    }
    made = with_extra(result, sets, {"a": 3, "b": 20}, seed=0)
    assert {e.id: e.split for e in result.examples if e.split != "pool"} == {
        e.id: e.split for e in made.examples if e.split != "pool"
    }, "held-out splits stay as they are"
    assert [e for e in of["pool"] if e not in made.examples] == sorted(of["pool"][:2], key=lambda e: e.id)
    held_out = [e for e in made.examples if e.split != "pool"]
    assert_no_leak([e for e in made.examples if e.split == "pool"], [*made.extra["a"], *made.extra["b"], *held_out])
    assert_no_leak(made.extra["b"], [*made.extra["a"], *held_out])
    assert_no_leak(made.extra["a"], held_out)
    assert len(made.extra["a"]) == 3
    reasons = [d.reason for d in made.dropped]
    assert reasons.count("exact duplicate of extra set b") == reasons.count("near duplicate of extra set b") == 1
    assert reasons.count("extra set b: exact duplicate of the gate split") == 1
    assert sum(map(len, sets.values())) + 90 == sum(made.counts.values()) + sum(map(len, made.extra.values()))
    assert all(d.duplicate_of or d.reason == "extra set a is full" for d in made.dropped)
    shuffled = {name: items[::-1] for name, items in sets.items()}
    assert with_extra(result, shuffled, {"b": 20, "a": 3}, seed=0).extra == made.extra, "no order of rows matters"


def test_a_set_without_an_own_item_and_a_set_of_the_whole_pool_are_refused():
    result = split_examples([make(f"How many {word(n)} are there?", n) for n in range(40)], SIZES, 0)
    with pytest.raises(DataError, match=r"extra\.far: expected items that no held-out split"):
        with_extra(result, {"far": [e for e in result.examples if e.split == "gate"]}, {"far": 9}, 0)
    with pytest.raises(DataError, match="leave a pool"):
        with_extra(result, {"far": result.examples}, {"far": 99}, 0)


def test_prepare_reads_grades_and_keeps_them_apart(tmp_path):
    rows = [*FAR[:4], ("What is 33 plus 33?", "66"), ("WHAT IS 44 PLUS 44", "88"), ("a question", "")]
    with loop_of(config_of(tmp_path, rows, items=20, grader="exact", max_bad_share=0.5)) as loop:
        prepare(loop, {})
        questions = {e.question for e in loop.extra["ood"]}
        held_out = {e.question for e in loop.examples.values() if e.split != "pool"}
        for n in (33, 44):
            question = f"What is {n} plus {n}?"
            assert (question in held_out) != any(q.casefold().startswith(question[:-1].casefold()) for q in questions)
            assert question not in {e.question for e in loop.split("pool")}
        assert {q for q, _ in FAR[:4]} <= questions
        assert not {e.id for e in loop.extra["ood"]} & loop.examples.keys()
        folder = loop.run.stage_path("prepare")
        counts = read_json(folder / "splits.json")
        dropped = read_records(folder / "dropped.jsonl", DroppedExample)
        assert counts["extra"] == {"ood": len(questions)}
        assert sum(counts["counts"].values()) + sum(counts["dropped"].values()) + len(questions) == 80 + 6
        assert len(dropped) == 2 and all("duplicate of" in d.reason and "ood" in d.reason for d in dropped)
        assert '"source":"extra.ood: ood.jsonl:7"' in (folder / "quarantine.jsonl").read_text()
        with pytest.raises(LeakError, match="without held-out items"):
            assert_no_leak([training_row(question=FAR[0][0].upper())], loop.held_out())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"columns": {"question": "nope", "answer": "a"}}, r"column `nope` is missing.*check extra\.ood\.columns"),
        ({"path": "missing.jsonl"}, r"missing\.jsonl: expected a data file.*set extra\.ood\.path"),
        ({"grader": "numeric"}, r"20 of 20 gold answers do not pass.*extra\.ood\.grader"),
        ({"grader": "python", "grader_function": "no.such:function"}, r"extra\.ood\.grader_function no\.such:function"),
    ],
)
def test_faulty_data_of_a_set_name_its_keys(tmp_path, keys, message):
    path = config_of(tmp_path, FAR, **({"grader": "exact"} | keys))
    with loop_of(path) as loop, pytest.raises(UserError, match=rf"(?s)^extra\.ood: .*{message}"):
        prepare(loop, {})


def test_changed_rows_and_few_shot_examples_of_a_set_are_refused(tmp_path):
    path = config_of(tmp_path, FAR, grader="exact")
    with loop_of(path) as loop:
        prepare(loop, {})
    config_of(tmp_path, [*FAR, ("One more?", "yes")], grader="exact")
    run, config = open_run(tmp_path / "runs" / "run")
    with open_loop(run, config, ProgressPrinter()) as loop, pytest.raises(RunDirError, match=r"extra\.ood changed"):
        prepare(loop, {})
    shots = [{"question": q.upper(), "answer": a} for q, a in FAR]
    tree = yaml.safe_load(config_of(tmp_path, FAR, "shots", grader="exact").read_text())
    (tmp_path / "shots.yaml").write_text(
        yaml.safe_dump(tree | {"student": tree["student"] | {"few_shot_examples": shots}})
    )
    with loop_of(tmp_path / "shots.yaml") as loop, pytest.raises(DataError, match="or extra set has"):
        prepare(loop, {})


def test_a_function_that_grades_a_set_is_run_on_nobodys_word(tmp_path, monkeypatch):
    keys = {"grader": "python", "grader_function": "samples:training_row"}
    run, config = create_run(load_config(path := config_of(tmp_path, FAR, **keys)), path, "run"), load_config(path)
    monkeypatch.chdir(Path(__file__).parent)
    with pytest.raises(RunDirError, match=r"`samples:training_row`"):
        check_grader_trusted(run, config, False)


def test_nothing_that_decides_sees_a_set(tmp_path):
    """Rounds with and without a set leave the same bytes, and the set is scored for the final test's arms."""
    made = {}
    for name, rows in (("with", FAR), ("without", [])):
        folder = tmp_path / name
        folder.mkdir()
        with loop_of(config_of(folder, rows, grader="exact")) as loop:
            run_plain(loop)
        made[name] = {
            path: hash_
            for path, hash_ in canonical_files(folder / "runs" / "run").items()
            # Inputs name the identity, of which sets are a part.
            if not path.endswith(("done.json", "started.json", "config.yaml"))
        }
    own = {path for path in made["with"] if "extra-ood" in path}
    assert own == {"prepare/extra-ood.jsonl"} | {
        f"answers/{adapter}/extra-ood{arm}/{file}.jsonl"
        for adapter, arm in [("base", ""), ("base", "_few_shot"), (adapter_of(tmp_path / "with/runs/run"), "")]
        for file in ("answers", "grades")
    }
    differ = {path for path in made["with"] if made["with"][path] != made["without"].get(path)} - own
    assert differ == {"prepare/splits.json", "prepare/dropped.jsonl", "final/final.json", "report.json"}
    assert made["without"].keys() == made["with"].keys() - own
    assert any(path.startswith("round_01/train/") for path in made["with"])
    assert adapter_of(tmp_path / "with/runs/run").startswith("run-r01-")
    final = [read_json(tmp_path / name / "runs/run/final/final.json")["final"] for name in ("with", "without")]
    assert final[0] | {"extra": []} == final[1]
    assert [(s["name"], s["base"]["n"]) for s in final[0]["extra"]] == [("ood", 5)]
    fork, _ = fork_run(tmp_path / "with/runs/run", 1, "fork", ["plan.rows_per_round=70"], lambda config: None)
    assert (fork.path / "answers/base/extra-ood/done.json").exists()


def adapter_of(run: Path) -> str:
    """The adapter that the final test scored."""
    return str(read_json(run / "final/final.json")["final"]["adapter_name"])


@pytest.mark.real
def test_a_report_shows_its_sets_and_follows_the_schema(tmp_path):
    import jsonschema

    config = config_of(tmp_path, FAR, grader="exact")
    done = tutelage("run", config, "--name", "run")
    assert done.code == 0, done.err
    assert "Extra sets (never select)" in done.out
    report = read_json(tmp_path / "runs/run/report.json")
    jsonschema.validate(report, json.loads(tutelage("schema", "report").out))
    assert report["extra_sizes"] == {"ood": 5}
    assert set(report["final"]["extra"][0]["adapter"]) == {"n", "correct", "rate", "low", "high"}
    assert "15 of them to extra sets" in tutelage("forecast", config).out

"""The whole loop through the real command line, with the fake student: seconds, not minutes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from command import canonical_files, tutelage, write_config

pytestmark = pytest.mark.real
ROUND_STAGES = ["approve", "build", "diagnose", "gate", "plan", "profile", "report", "train"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of two rounds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = tutelage("run", write_config(folder), "--name", "run", "--json")
    assert done.code == 0, done.err
    assert done.last == {
        "run": str(folder / "run"),
        "status": "finished",
        "rounds": 2,
        "report": str(folder / "run" / "report.html"),
    }
    return folder / "run"


def test_a_run_leaves_every_stage_of_every_round(finished: Path) -> None:
    assert sorted(p.name for p in (finished / "round_02").iterdir()) == ROUND_STAGES
    assert sorted(p.name for p in (finished / "round_00").iterdir()) == ["diagnose", "gate", "profile", "report"]
    assert all((stage / "done.json").exists() for stage in finished.glob("round_*/*"))
    assert not list(finished.rglob("*.journal")) + list(finished.rglob(".*.tmp"))


def test_every_document_has_a_schema_version(finished: Path) -> None:
    for path in finished.rglob("*.json"):
        if "train" not in path.parts or path.name != "rows.json":
            assert path.name in ("timing.json", "rows.json") or "schema_version" in json.loads(path.read_text()), path
    for path in finished.rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            assert "schema_version" in json.loads(line), path


def test_the_report_follows_its_published_schema(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    schema = json.loads(tutelage("schema", "report").out)
    jsonschema.validate(report, schema)
    for arm in ("base", "base_few_shot", "adapter"):
        assert set(report["final"][arm]) == {"n", "correct", "rate", "low", "high"}
    assert [r["decision"] for r in report["rounds"]] == ["baseline", "accepted", "accepted"]
    assert {"before", "after", "change"} <= set(report["rounds"][1]["skills"][0])
    assert report["final"]["adapter"]["rate"] > report["final"]["base"]["rate"]


def test_rows_follow_the_expected_gain_where_the_config_says_so(finished: Path, tmp_path: Path) -> None:
    done = tutelage("run", write_config(tmp_path), "--name", "run", "--set", "plan.allocation=expected_gain")
    assert done.code == 0, done.err
    by_failures = json.loads((finished / "round_02" / "plan" / "allocation.json").read_text())
    made = json.loads((tmp_path / "run" / "round_02" / "plan" / "allocation.json").read_text())
    assert (by_failures["rule"], made["rule"], made["points"]) == ("failures", "expected_gain", 2)
    plan = yaml.safe_load((tmp_path / "run" / "round_02" / "plan" / "plan.proposed.yaml").read_text())
    shares = {s["skill"]: s["shares"]["expected_gain"] for s in made["skills"]}
    assert {s["skill"]: s["share"] for s in plan["skills"]} == pytest.approx(shares)
    rows = [
        json.loads(line)
        for line in (tmp_path / "run" / "round_02" / "build" / "training_set.jsonl").read_text().splitlines()
    ]
    assert {r["layer"] for r in rows} == {"uniform floor", "expected gain", "replay"}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["rounds"][2]["allocation"] == made


def test_items_that_need_several_skills_go_through_the_whole_loop(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    tree = yaml.safe_load(config.read_text())
    tree["data"]["tasks"] = {
        "chain_sum": [{"difficulty": 1, "params": {"max_terms": 2, "max_digits": 1}}],
        "chain_sum+spell_backward": [{"difficulty": 2}],
    }
    tree["data"]["splits"] = {"probe": 24, "gate": 24, "final": 24}
    config.write_text(yaml.safe_dump(tree | {"rounds": 1}))
    done = tutelage("run", config, "--name", "run")
    assert done.code == 0, done.err
    labels = [json.loads(line) for line in (tmp_path / "run" / "label" / "labels.jsonl").read_text().splitlines()]
    assert {tuple(r["skills"]) for r in labels} == {("chain_sum",), ("chain_sum", "spell_backward")}
    round_1 = tmp_path / "run" / "round_01"
    diagnoses = [json.loads(line) for line in (round_1 / "diagnose" / "diagnoses.jsonl").read_text().splitlines()]
    assert ["chain_sum", "spell_backward"] in [d["missing_skills"] for d in diagnoses]
    rows = [json.loads(line) for line in (round_1 / "build" / "training_set.jsonl").read_text().splitlines()]
    written_for = {r["skill"] for r in rows if r["origin"] == "written"}
    assert written_for == {"chain_sum", "spell_backward"}, (
        "a skill without a task of its own is taught by a composed one"
    )
    assert all(r["target"].count(",") == 1 for r in rows if len(r["skills"]) == 2)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    counted = {s["skill"]: s["before"]["n"] for s in report["final"]["skills"]}
    assert counted["chain_sum"] == 24 and 0 < counted["spell_backward"] < 24


def test_no_training_row_touches_a_held_out_split(finished: Path) -> None:
    examples = [json.loads(line) for line in (finished / "prepare" / "examples.jsonl").read_text().splitlines()]
    held_out = {e["question"] for e in examples if e["split"] != "pool"}
    assert {e["split"] for e in examples} == {"pool", "probe", "gate", "final"}
    for path in finished.glob("round_*/build/training_set.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert not held_out & {r["question"] for r in rows}
        assert {"pool", "written"} <= {r["origin"] for r in rows}


def test_the_plain_loop_gives_the_same_files(finished: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from agents import session; from agents.graph import run_plain; from agents.progress import ProgressPrinter\n"
        "from agents.reporting import write_pages; from curriculum.config import load_config\n"
        "path = Path(sys.argv[1]); config = load_config(path)\n"
        "with session.create_run(config, path, 'run') as run:\n"
        "    with session.open_loop(run, config, ProgressPrinter()) as loop:\n"
        "        run_plain(loop); write_pages(run, config)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(write_config(tmp_path))], check=True, capture_output=True)
    ours, theirs = canonical_files(tmp_path / "run"), canonical_files(finished)
    # The config names the folder the runs are in, which differs here.
    assert ours | {"config.yaml": ""} == theirs | {"config.yaml": ""}


def test_resuming_a_finished_run_changes_nothing(finished: Path) -> None:
    before = canonical_files(finished)
    done = tutelage("resume", finished, "--json")
    assert (done.code, done.last["status"]) == (0, "finished")
    assert canonical_files(finished) == before


def test_a_run_can_be_extended_and_the_change_is_journalled(finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", finished, tmp_path / "run"], check=True)
    done = tutelage("resume", tmp_path / "run", "--set", "rounds=3", "--json")
    assert done.last["rounds"] == 3
    assert '"rounds":[2,3]' in (tmp_path / "run" / "config_changes.jsonl").read_text()


def test_identity_keys_may_not_change_within_a_run(finished: Path) -> None:
    done = tutelage("resume", finished, "--set", "seed=5", "--set", "plan.rows_per_round=41")
    assert done.code == 2
    assert "plan.rows_per_round: 40 → 41" in done.err and "seed: 0 → 5" in done.err
    assert "Traceback" not in done.err


def test_the_terminal_report_shows_each_skill_with_counts_and_intervals(finished: Path) -> None:
    out = tutelage("report", finished, "--round", "1").out
    for skill in ("chain_sum", "basic_arithmetic", "spell_backward"):
        assert skill in out
    assert re.search(r"\d+/\d+", out)


def test_an_existing_run_is_not_overwritten(finished: Path) -> None:
    done = tutelage("run", write_config(finished.parent), "--name", "run")
    assert done.code == 2 and "tutelage resume" in done.err


def test_a_second_process_on_the_same_run_is_refused(finished: Path) -> None:
    from curriculum.rundir import RunDir

    with RunDir(finished):
        done = tutelage("resume", finished)
    assert done.code == 2 and "another process" in done.err


def test_faulty_config_leaves_nothing_behind(tmp_path: Path) -> None:
    done = tutelage("run", write_config(tmp_path, extra="colour: red\n"), "--json")
    assert done.code == 2
    assert done.last["status"] == "error"
    done = tutelage("run", write_config(tmp_path), "--set", "data.splits.final=100000")
    assert done.code == 2 and "Traceback" not in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"]


def test_a_person_edits_and_approves_the_plan(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tutelage("run", write_config(tmp_path), "--name", "run", "--set", "plan.approve=true", "--json")
    assert (done.code, done.last["status"]) == (0, "waiting")
    file = run / "round_01" / "approve" / "plan.approved.yaml"
    proposed = (run / "round_01" / "plan" / "plan.proposed.yaml").read_bytes()
    assert str(file) in done.err

    assert tutelage("resume", run, "--json").last["status"] == "waiting"

    approval = yaml.safe_load(file.read_text())
    approval |= {"approved": True, "by": "Ada", "reason": "less of everything"}
    for skill in approval["plan"]["skills"]:
        skill["pool_rows"] = 3
        skill["written_rows"] = {}
    approval["plan"]["skills"][0]["written_rows"] = {7: 1}
    file.write_text(yaml.safe_dump(approval))
    refused = tutelage("resume", run)
    assert refused.code == 2 and str(file) in refused.err

    approval["plan"]["skills"][0]["written_rows"] = {}
    file.write_text(yaml.safe_dump(approval))
    done = tutelage("resume", run, "--json")
    assert done.last["status"] == "waiting" and "round_02" in done.err
    assert len((run / "round_01" / "build" / "training_set.jsonl").read_text().splitlines()) == 9
    assert (run / "round_01" / "plan" / "plan.proposed.yaml").read_bytes() == proposed

    done = tutelage("resume", run, "--set", "plan.approve=false", "--json")
    assert done.last["status"] == "waiting", "a plan that waits for a person is not approved behind their back"


def test_editing_an_approved_plan_later_redoes_what_depends_on_it(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", finished, run], check=True)
    file = run / "round_02" / "approve" / "plan.approved.yaml"
    approval = yaml.safe_load(file.read_text())
    approval |= {"by": "Ada", "reason": "slower"}
    approval["plan"]["learning_rate"] = 0.0001
    approval["plan"]["skills"][0]["pool_rows"] += 2
    file.write_text(yaml.safe_dump(approval))
    before, after = canonical_files(run), {}
    assert tutelage("resume", run).code == 0
    after = canonical_files(run)
    assert before["round_01/report/done.json"] == after["round_01/report/done.json"]
    for stage in ("build", "train", "gate", "report"):
        assert before[f"round_02/{stage}/done.json"] != after[f"round_02/{stage}/done.json"]


@pytest.mark.parametrize(("seen", "rounds"), [("examples:", 0), ("round 0", 0)])
def test_a_stop_is_graceful(tmp_path: Path, finished: Path, seen: str, rounds: int) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "agents.cli", "run", str(write_config(tmp_path)), "--name", "run", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if seen in line:
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate()
    assert process.returncode == 130
    last = json.loads(out.splitlines()[-1])
    assert (last["status"], last["rounds"]) == ("interrupted", rounds)
    assert f"tutelage resume {run}" in err and "Traceback" not in err
    assert tutelage("resume", run).code == 0
    ours, theirs = canonical_files(run), canonical_files(finished)
    assert ours | {"config.yaml": ""} == theirs | {"config.yaml": ""}


def test_a_dead_worker_is_tried_again_and_a_diverged_training_is_not() -> None:
    from agents.graph import _is_transient
    from curriculum.errors import StudentError, TrainingError, UserError

    assert [_is_transient(kind("x")) for kind in (StudentError, TrainingError, UserError, OSError)] == [
        True,
        False,
        False,
        False,
    ]


def test_help_does_not_import_the_heavy_libraries() -> None:
    heavy = "('torch', 'transformers', 'langgraph', 'scipy')"
    code = f"import sys, agents.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "curriculum rounds" in tutelage("--help").out or "missing" in tutelage("--help").out


def test_the_forecast_spends_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = tutelage("forecast", config, "--set", "rounds=1")
    assert done.code == 0 and "smallest gain" in done.out and "Warning" not in done.out
    assert "Warning" in tutelage("forecast", config, "--set", "data.splits.gate=20").out
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"]


def test_secrets_of_the_environment_reach_no_file(tmp_path: Path) -> None:
    os.environ["TUTELAGE_TEST_API_KEY"] = "sk-never-write-me"
    try:
        assert tutelage("run", write_config(tmp_path), "--name", "run", "--set", "rounds=1").code == 0
    finally:
        del os.environ["TUTELAGE_TEST_API_KEY"]
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"sk-never-write-me" not in path.read_bytes()


def test_the_report_traces_rows_failures_and_adapters_to_the_run(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    base, first, second = report["adapters"]
    trained = json.loads((finished / "round_02" / "train" / "adapter.json").read_text())
    assert (second["name"], second["files"]) == (trained["name"], trained["files"])
    assert [a["became"] for a in (base, first, second)] == ["base", "accepted", "accepted"]
    assert (base["start"], first["start"]) == (None, "base") and second["start"] in ("base", first["name"])
    answers = list((finished / "answers").glob("*/*/answers.jsonl"))
    rows = [sum(1 for _ in (finished / f"round_0{r}" / "build" / "training_set.jsonl").open()) for r in (1, 2)]
    assert report["work"]["all_answers"] == sum(len(path.read_text().splitlines()) for path in answers)
    assert report["work"]["all_answers"] <= report["work"]["forecast_answers"]
    assert report["work"]["rows"] == sum(rows) and [t["rows"] for t in report["taught"]] == rows

    wrong = set()
    for path in (finished / "answers").glob("*/probe/grades.jsonl"):
        grades = map(json.loads, path.read_text().splitlines())
        wrong |= {g["example_id"] for g in grades if g["verdict"] not in ("correct", "failed")}
    assert report["failed"]["items"] == len(wrong) == len(report["failed"]["shown"])
    last = {g["example_id"]: g["verdict"] for g in _probe_grades(finished, first["name"])}
    for item in report["failed"]["shown"]:
        assert [a["adapter"] for a in item["answers"]] == ["base", first["name"]]
        assert (
            item["outcome"] == "fixed" if last[item["example_id"]] == "correct" else item["outcome"] in ("open", "lost")
        )


def _probe_grades(run: Path, adapter: str) -> list[dict[str, str]]:
    return [
        json.loads(line) for line in (run / "answers" / adapter / "probe" / "grades.jsonl").read_text().splitlines()
    ]


def test_the_commands_of_the_report_make_the_run_again(finished: Path) -> None:
    *_, command = json.loads((finished / "report.json").read_text())["reproduction"]["commands"]
    program, *args = shlex.split(command)
    assert program == ".venv/bin/tutelage" and args == ["run", "runs/run/config.yaml", "--name", "run-again"]
    args[1] = str(finished / "config.yaml")
    done = tutelage(*args)
    assert done.code == 0, done.err
    again = finished.with_name("run-again")
    mine, other = canonical_files(finished), canonical_files(again)
    same = [path for path in mine if path.startswith(("prepare/", "label/", "answers/base/", "round_01/build/"))]
    assert len(same) > 8 and {p: mine[p] for p in same} == {p: other[p] for p in same}

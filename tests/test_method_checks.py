"""What methods lack is told before anything is computed, all of it at once."""

import json
from pathlib import Path

import pytest
from command import tutelage, write_config
from test_methods import worked_config

from agents.method_checks import check_methods, check_skills
from curriculum.config import load_config
from curriculum.errors import ConfigError
from curriculum.records import Skill, SkillCatalogue

DFT = ["training.loss=dft", "training.dft_skills=[chain_sum, dancing]"]


def settings(*given: str) -> list[str]:
    return [word for one in given for word in ("--set", one)]


@pytest.mark.parametrize("command", ["run", "forecast", "data check"])
def test_all_faults_of_methods_and_gate_are_told_at_once_and_nothing_is_left(command: str, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    given = [*DFT, "plan.unwanted={pairs: nowhere.jsonl}", "data.splits.gate=1"]
    done = tutelage(*command.split(), config, *settings(*given))
    assert done.code == 2
    assert "training.dft_skills: expected some of" in done.err and "got dancing" in done.err
    assert "plan.unwanted.pairs nowhere.jsonl" in done.err
    assert ("data.splits.gate: expected items enough" in done.err) == (command != "forecast"), "a forecast only warns"
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line"),
        ("{}\n", "line 1: Field required"),
        ('{"question": "q", "wanted": "a", "unwanted": "b"}\nnonsense\n', "line 2: no JSON"),
        ('{"question": "q", "wanted": "a", "unwanted": " a"}\n', "line 1: wanted and unwanted are the same"),
    ],
)
def test_pairs_that_cannot_serve_are_told_before_the_run(text: str, said: str, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(text)
    config = load_config(write_config(tmp_path), [f"plan.unwanted={{pairs: {pairs}}}"])
    with pytest.raises(ConfigError, match=said):
        check_methods(config)


def test_a_bench_is_refused_for_skills_that_no_task_has(tmp_path: Path) -> None:
    done = tutelage("bench", write_config(tmp_path), "--arms", "dft", "--forecast", *settings(*DFT))
    assert done.code == 2 and "got dancing" in done.err


def test_skills_of_a_file_are_checked_with_its_data_and_the_run_is_taken_back(tmp_path: Path) -> None:
    config = worked_config(tmp_path)
    check_methods(load_config(config, DFT))  # a file's skills are not known yet
    done = tutelage("run", config, "--name", "run", *settings(*DFT))
    assert done.code == 2 and "got chain_sum, dancing" in done.err and not (tmp_path / "run").exists()


def test_a_fork_is_refused_before_it_trains_and_a_resume_where_the_pairs_are_gone(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"question": "q", "wanted": "a", "unwanted": "b"}) + "\n")
    unwanted = settings(f"plan.unwanted={{pairs: {pairs}}}", "rounds=1")
    done = tutelage("run", write_config(tmp_path), "--name", "run", *unwanted)
    assert done.code == 0, done.err
    forked = tutelage("fork", tmp_path / "run", "--round", "0", "--name", "fork", *settings(*DFT))
    assert forked.code == 2 and "got dancing" in forked.err and not (tmp_path / "fork").exists()
    pairs.unlink()
    gone = tutelage("resume", tmp_path / "run", "--extend", "1")
    assert gone.code == 2 and "plan.unwanted.pairs" in gone.err


def test_a_catalogue_s_skills_are_those_that_count(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), ["training.loss=dft", "training.dft_skills=[gcd]"])
    known = Skill(id="gcd", name="gcd", writable=True)
    check_skills(config, SkillCatalogue(teacher="offline", skills=(known,)))
    with pytest.raises(ConfigError, match="expected some of other, got gcd"):
        check_skills(config, SkillCatalogue(teacher="offline", skills=(known.model_copy(update={"id": "other"}),)))

"""Every fault of a config is reported at once, with its line; shipped configs load; identity is what it says."""

import re
from pathlib import Path

import pytest
import yaml

from curriculum.config import flatten, load_config
from curriculum.errors import ConfigError

CONFIGS = sorted(Path(__file__).parents[1].glob("runs/configs/**/*.yaml"))

MINIMAL = """\
data:
  kind: reasoning_gym
  per_task: 10
  tasks:
    chain_sum:
      - {difficulty: 1}
  splits: {probe: 2, gate: 2, final: 2}
plan:
  rows_per_round: 4
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_load_and_open_with_their_command(path: Path) -> None:
    load_config(path)
    assert re.search(rf"tutelage (run|bench) runs/configs/{path.name}\s", path.read_text())


def test_shipped_configs_are_there() -> None:
    assert {"quickstart", "svamp", "gsm8k"} <= {path.stem for path in CONFIGS}


def test_all_faults_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = MINIMAL.replace("per_task: 10", "per_task: none\n  colour: red") + "  write_share: 2\nstudnt: {}\n"
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    faults = str(caught.value).splitlines()
    path = tmp_path / "config.yaml"
    assert sorted(fault.split(" ")[0] for fault in faults) == [f"{path}:{n}:" for n in (11, 12, 3, 4)]
    assert f"{path}:4: unknown key `data.colour`" in faults
    assert any("`data.per_task`" in fault and "'none'" in fault for fault in faults)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected keys"),
        ("- 1\n", "expected keys"),
        ("a: [1", "not YAML"),
        (MINIMAL + "plan: {rows_per_round: 5}\n", "given twice"),
        (MINIMAL.replace("plan:\n  rows_per_round: 4\n", ""), "`plan` is missing"),
        (MINIMAL.replace("reasoning_gym", "spreadsheet"), "`data`"),
        (MINIMAL.replace("difficulty: 1", "difficulty: 9"), "`data.tasks.chain_sum.0.difficulty`"),
    ],
)
def test_each_fault_names_itself(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        ("[{question: a, answer: 3}, b]", [".0.answer`: Input should be a valid string", ".1`: Input should be"]),
        ("[{question: a}]", [".0.answer` is missing"]),
        ("[]", ["`: Tuple should have at least 1 item"]),
        ("3", ["`: Input should be a valid tuple"]),
    ],
)
def test_a_faulty_few_shot_example_is_the_only_fault(tmp_path: Path, shots: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, f"{MINIMAL}student:\n  few_shot_examples: {shots}\n"))
    faults = str(caught.value).splitlines()
    assert len(faults) == len(expected)
    for fault, part in zip(faults, expected, strict=True):
        assert ":11: " in fault and f"`student.few_shot_examples{part}" in fault


def test_a_number_too_long_to_print_is_a_fault_of_an_override(tmp_path: Path) -> None:
    for digits in ("0x" + "1" * 5000, "1" * 5000):
        with pytest.raises(ConfigError, match=r"^--set seed=.{0,80}: the value is not YAML: a number of 500\d digits"):
            load_config(write(tmp_path, MINIMAL), [f"seed={digits}"])


@pytest.mark.parametrize(
    "key", ["training.learning_rate", "training.alpha", "training.max_grad_norm", "training.weight_decay"]
)
@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_no_number_of_a_config_is_endless(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"`{key}`: Input should be"):
        load_config(write(tmp_path, MINIMAL), [f"{key}={value}"])


def test_a_missing_file_says_where_the_shipped_ones_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runs/configs/"):
        load_config(tmp_path / "none.yaml")


def test_writing_rows_needs_a_generator(tmp_path: Path) -> None:
    data = "{kind: file, path: x.json, format: svamp, splits: {probe: 1, gate: 1, final: 1}}"
    text = f"data: {data}\nplan: {{rows_per_round: 4}}\n"
    with pytest.raises(ConfigError, match=r"set plan\.write_share to 0"):
        load_config(write(tmp_path, text))
    assert load_config(write(tmp_path, text), ["plan.write_share=0"]).plan.write_share == 0


def test_overrides_are_applied_and_checked(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    assert load_config(path, ["plan.rows_per_round=7", "rounds=5"]).plan.rows_per_round == 7
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["plan.rows_per_round", "plan.rows_per_round.x=1", "colour=red"])
    assert str(caught.value).count("--set") == 2
    assert "unknown key `colour`" in str(caught.value)


def test_identity_ignores_operational_keys_and_the_order_of_keys(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    moved = yaml.safe_dump(yaml.safe_load(MINIMAL), sort_keys=True)
    assert load_config(write(tmp_path, moved)).identity_hash == config.identity_hash
    assert (
        load_config(write(tmp_path, MINIMAL), ["rounds=9", "plan.approve=true"]).identity_hash == config.identity_hash
    )
    assert load_config(write(tmp_path, MINIMAL), ["seed=9"]).identity_hash != config.identity_hash


def test_a_resolved_config_loads_to_the_same_config(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(resolved) == config


def test_flatten_makes_dotted_keys() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [1]}}, "e": {}}) == {"a.b": 1, "a.c.d": [1], "e": {}}

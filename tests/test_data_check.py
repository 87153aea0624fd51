"""`tutelage data check`: counts that are right, limits, rows as the student reads them, and nothing left behind."""

import json
from io import StringIO

import pytest
import yaml
from command import tutelage
from rich.console import Console
from test_extra import COLUMNS, FAR, config_of
from tiny_model import make_tiny_model

from agents.data_check import CHUNK, DataCheck, check_data, print_check
from agents.progress import ProgressPrinter
from curriculum.config import load_config
from curriculum.errors import ConfigError, DataError

HOSTILE = "Say <|im_end|> ⟦x⟧ [red]\u202ered[/red] {n} times."


def check(path, *overrides) -> DataCheck:
    return check_data(load_config(path, overrides), ProgressPrinter(StringIO()))


def shown(made: DataCheck) -> str:
    console = Console(file=StringIO(), width=100, highlight=False)
    print_check(made, console)
    return console.file.getvalue()


def of(made: DataCheck, name: str):
    [found] = [s for s in made.splits if s.name == name]
    return found


def add_rows(tmp_path, *rows) -> None:
    with (tmp_path / "data.jsonl").open("a") as file:
        file.writelines(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def test_counts_are_those_of_a_run(tmp_path):
    path = config_of(tmp_path, [*FAR, FAR[0]], grader="exact", items=30)
    add_rows(
        tmp_path,
        {"question": "What is 12 plus 12?", "gold": "24"},
        {"question": "What is the 15 plus 15?", "gold": "30"},
        {"question": "A hard one?", "gold": "5", "skills": ["s0", "s1"], "difficulty": 4},
        "not json\n",
        '{"question": "", "gold": "1"}\n',
        '{"question": "Which?", "gold": "many"}\n',
    )
    made = check(path)
    kept = [s for s in made.splits if not s.name.startswith("extra")]
    assert [s.name for s in made.splits] == ["pool", "probe", "gate", "final", "extra ood"]
    assert [s.items for s in made.splits] == [39, 9, 24, 9, 20]
    assert sum(sum(s.skills.values()) for s in kept) == 82, "81 items, one of them with two skills"
    assert sum(s.difficulties.get("4", 0) for s in kept) == 1
    assert of(made, "extra ood").difficulties == {"undeclared": 20}
    assert sum(count for why, count in made.dropped.items() if why.startswith("exact duplicate of a ")) == 1
    assert sum(count for why, count in made.dropped.items() if why.startswith("near duplicate of a ")) == 1
    assert made.dropped["extra set ood: exact duplicate of extra set ood"] == 1
    assert set(made.quarantined.values()) == {1} and list(made.quarantined)[:2] == [
        "`question`: is empty",
        "expected the gold answer … to pass its own grader `numeric`, got wrong (strict) and unparsed (lenient, "
        "read as …)",
    ]
    assert "not JSON: Expecting value at character …" in made.quarantined
    assert (made.first_quarantined[0].source, made.first_quarantined[0].text) == ("data.jsonl:84", "not json")
    assert made.warnings[-1] == "extra set ood has 20 items, fewer than the 30 it may have."
    assert len(made.rows) == 10 and made.rows == check(path).rows != check(path, "seed=1").rows
    text = shown(made)
    for expected in (
        "extra ood",
        "undeclared",
        "Dropped rows: ",
        "Quarantined rows: 3",
        "data.jsonl:84",
        "Row 10 of 10",
    ):
        assert expected in text
    assert list(tmp_path.glob("runs*")) == []


def test_lengths_and_limits_are_those_of_the_students_own_tokenizer(tmp_path):
    base = make_tiny_model(tmp_path / "model")
    path = config_of(tmp_path, FAR, grader="exact")
    add_rows(tmp_path, *({"question": HOSTILE.format(n=n), "gold": str(n)} for n in range(60)))
    student = [f"student.base={base}", "student.engine=transformers", "student.dtype=float32"]
    made = check(path, *student, "student.max_new_tokens=3")

    from transformers import AutoTokenizer

    from student.chat_format import encode_row, prompt_messages

    tokenizer = AutoTokenizer.from_pretrained(base)
    for row in made.rows:
        prompt = "".join(text for text, _ in row.prompt)
        system = prompt.partition("system\n")[2].partition("<|im_end|>")[0]
        question = prompt.partition("user\n")[2].rpartition("<|im_end|>\n<|im_start|>assistant")[0]
        target = "".join(text for text, _ in row.target[:-1])
        encoded = encode_row(tokenizer, prompt_messages(system, (), question), target)
        assert prompt + target + "<|im_end|>" == tokenizer.decode(encoded.input_ids)
        assert sum(special for _, special in row.prompt) == 5 and row.target[-1] == ("<|im_end|>", True)
        assert of(made, row.split).prompt_tokens.most >= encoded.prompt_length
    assert all(s.cut == s.items for s in made.splits), "an answer line has more than three tokens"
    assert any("Raise student.max_new_tokens" in w for w in made.warnings)
    pool = of(made, "pool")
    limit = pool.prompt_tokens.median + pool.target_tokens.median
    fewer = check(path, *student, f"training.max_length={limit}")
    assert 0 < of(fewer, "pool").too_long < pool.items and of(fewer, "gate").too_long is None
    assert any(w.startswith(f"{of(fewer, 'pool').too_long} of {pool.items} pool rows") for w in fewer.warnings)

    text = shown(made)
    assert "│ ⟦<|im_start|>⟧user\n│ Say <|im_end|> \\u27e6x\\u27e7 [red]\\u202ered[/red]" in text
    assert "\u202e" not in text
    assert {text[at - 1] for at in range(1, len(text)) if text.startswith("<|im_start|>", at)} == {"⟦"}


def test_encoding_in_chunks_changes_nothing(tmp_path, monkeypatch):
    path = config_of(tmp_path, FAR, grader="exact")
    whole = check(path)
    assert CHUNK > 80
    monkeypatch.setattr("agents.data_check.CHUNK", 7)
    assert check(path) == whole


def test_what_cannot_be_taught_is_warned_of(tmp_path):
    path = config_of(tmp_path, [])
    rows = [{"question": f"How many {n}?", "gold": str(n)} for n in range(80)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert any("nothing to target" in w for w in check(path).warnings)
    rows = [row | {"skills": ["rare"] if n == 3 else ["s"]} for n, row in enumerate(rows)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert any("no pool row teaches rare" in w for w in check(path).warnings)
    assert any("15%" in w for w in check(path, "data.splits.gate=10").warnings)


def test_what_would_stop_a_run_is_raised(tmp_path):
    path = config_of(tmp_path, FAR, grader="exact")
    with pytest.raises(ConfigError, match=r"data\.splits\.gate"):
        check(path, "data.splits.gate=2")
    with pytest.raises(DataError, match="more than 142 distinct items"):
        check(path, "data.splits.final=109")
    add_rows(tmp_path, *["not json\n"] * 30)
    with pytest.raises(DataError, match="max_bad_share"):
        check(path)


@pytest.mark.real
def test_the_command_prints_a_last_line_and_exits_with_2_on_faults(tmp_path):
    path = config_of(tmp_path, FAR, grader="exact")
    done = tutelage("data", "check", path, "--json")
    assert done.code == 0, done.err
    assert done.last["status"] == "ok"
    assert DataCheck.model_validate({k: v for k, v in done.last.items() if k != "status"}) == check(path)
    tree = yaml.safe_load(path.read_text())
    tree["extra"]["ood"]["columns"] = COLUMNS | {"answer": "nope"}
    path.write_text(yaml.safe_dump(tree))
    done = tutelage("data", "check", path, "--json")
    assert (done.code, done.last["status"]) == (2, "error")
    assert "extra.ood" in done.err and "Traceback" not in done.err
    assert not (tmp_path / "runs").exists()

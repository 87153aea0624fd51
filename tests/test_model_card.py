"""The model card and the lm-eval task: honest names, nothing foreign read as markup, and the strict rule."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from samples import student_answer
from test_report import HOSTILE, run_report, trained

from curriculum.extraction import extract_strict
from curriculum.lm_eval_task import agrees, make_task
from curriculum.model_card import Base, Card, honest_base, render_card
from curriculum.records import Example, Grade, Message, Sampling, Verdict


def card(text: str, **fields: object) -> Card:
    plain = Card(
        report=run_report(text),
        adapter=trained(text),
        base=Base("owner/model", text),
        system_prompt=text,
        row_words=text,
        usage=text,
        reproduction=text,
        reproduction_words="With " + text,
        hashes={text: "0" * 64},
        cross_check="In " + text,
        gold_words="Gold " + text,
    )
    return plain._replace(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["", "bfloat16"])
def test_a_card_takes_nothing_from_data_but_text(dtype: str) -> None:
    hostile, harmless = render_card(card(HOSTILE, merged_dtype=dtype)), render_card(card("x", merged_dtype=dtype))
    loaded = ModelCard(hostile)
    assert loaded.data.to_dict().keys() == ModelCard(harmless).data.to_dict().keys()
    assert loaded.data.base_model == "owner/model"
    assert not re.search("[\x00\x1b\x07\u202e\ud800]", hostile)
    fence, outside = "", []
    for line in loaded.text.splitlines():
        if not fence and line.startswith("```"):
            fence = line.removesuffix("text")
        elif fence:
            fence = "" if line == fence else fence
        else:
            outside.append(line)
    assert fence == "" and not re.search(r"(?<!\\)[<>]|(?<!\\)!\[|(?<!\\)\]\(", "\n".join(outside))
    heads = [line for line in ModelCard(harmless).text.splitlines() if line.startswith("#")]
    assert [line.split()[0] for line in outside if line.startswith("#")] == [head.split()[0] for head in heads]


@pytest.mark.parametrize("name", ["---\nlicense: mit\n---\n# a", "a: b\n...\n--- ", "'\"\n---\n!!python/object:x"])
def test_no_name_ends_the_metadata(name: str) -> None:
    made = card("x", report=run_report("x").model_copy(update={"run": name, "data": name}), adapter=trained(name))
    loaded = ModelCard(render_card(made))
    assert loaded.data.license is None and loaded.data.base_model == "owner/model"
    assert loaded.text.strip().startswith("# ")


@pytest.mark.parametrize(
    ("name", "local", "metadata", "words"),
    [
        ("smollm2-135m", False, "smollm2-135m-instruct-dequantised-q4_1", "not the original weights"),
        ("Qwen/Qwen2.5-0.5B-Instruct", False, "Qwen/Qwen2.5-0.5B-Instruct", "at revision abc, of the Hugging Face Hub"),
        ("/data/somebody/models/mine", True, None, "mine, a local folder"),
        ("models/mine", True, None, "mine, a local folder"),
        ("not a/hub name/<b>", False, None, "a local folder"),
    ],
)
def test_the_base_has_its_honest_name(name: str, local: bool, metadata: str | None, words: str) -> None:
    base = honest_base(name, "abc", local)
    assert base.metadata == metadata and words in base.words and "/data/somebody" not in base.words


def example(gold: str, **fields: object) -> Example:
    return Example.make(question=f"q {gold}", gold=gold, grader="exact", source="test", **fields)  # type: ignore[arg-type]


def test_a_task_asks_what_the_student_was_asked() -> None:
    turn = Message(role="user", content="earlier")
    examples = [example("[1, 2]"), example("2026-01-01"), example("3", history=(turn,))]
    hostile = "{{ 7 * 7 }} !!python/object:os.system"
    labels = {e.id: ["s"] for e in examples}
    task = make_task("Ev/il: run", examples, labels, hostile, Sampling(max_new_tokens=9))
    assert (task.name, task.items, task.left_out) == ("tutelage_ev_il_run_final", 2, 1)
    made = yaml.safe_load(task.files["tutelage_ev_il_run_final.yaml"])
    assert made["generation_kwargs"] == {"until": [], "max_gen_toks": 9, "do_sample": False}
    rows = [json.loads(line) for line in task.files["items.jsonl"].splitlines()]
    assert [r["target"] for r in rows] == ["Answer: [1, 2]", "Answer: 2026-01-01"]
    assert {r["system"] for r in rows} == {hostile} and hostile not in task.files["tutelage_ev_il_run_final.yaml"]
    drawn = make_task("r", examples, labels, "", Sampling(max_new_tokens=9, temperature=0.7, top_p=0.9))
    made = yaml.safe_load(drawn.files["tutelage_r_final.yaml"])
    assert "description" not in made and made["generation_kwargs"]["temperature"] == 0.7


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Answer: Blue", True),
        ("Because.\nAnswer: blue\n \n", True),
        ("Answer: blue\nSure.", False),
        ("The answer: blue", False),
        ("Answer: ", False),
        ("Answer: blue sky", False),
        ("", False),
    ],
)
def test_the_tasks_rule_is_the_strict_extraction(text: str, right: bool) -> None:
    item = example("blue")
    answer = student_answer(item, text)
    assert ((extract_strict(text) or "").lower() == "blue") == right
    strict = Verdict.CORRECT if right else Verdict.WRONG
    grade = Grade(
        answer_id=answer.id, example_id=item.id, adapter="base", grader="exact", verdict=Verdict.CORRECT,
        strict_verdict=strict, extracted=None, strict_extracted=None,
    )  # fmt: skip
    assert agrees({item.id: item}, [answer], [grade]) == (1, 1)
    failed = grade.model_copy(update={"verdict": Verdict.FAILED})
    assert agrees({item.id: item}, [answer], [failed]) == (0, 0)

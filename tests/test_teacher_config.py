"""The config of an LLM teacher: what a role takes over, what is refused, and that no message repeats a secret."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from curriculum.catalogue_file import edited_catalogue, first_catalogue, mapped, read_catalogue, write_catalogue
from curriculum.config import load_config
from curriculum.errors import ConfigError, UserError
from curriculum.records import Skill, SkillCatalogue
from curriculum.teacher_config import ROLES, TeacherConfig

ROOT = Path(__file__).parents[1]
URL = "https://api.openai.com/v1"


def teacher(**keys: Any) -> TeacherConfig:
    return TeacherConfig.model_validate({"kind": "llm", "model": "m", "base_url": URL} | keys)


def test_two_lines_change_the_teacher() -> None:
    before, after = teacher(), teacher(model="n", base_url="http://localhost:8000/v1")
    for role in ROLES:
        assert before.endpoint(role)[1:4] == ("m", URL, "OPENAI_API_KEY")
        assert after.endpoint(role)[1:4] == ("n", "http://localhost:8000/v1", None)
    assert before.endpoint("label").structured == "json_schema" and after.endpoint("label").structured == "prompt"


def test_a_role_overrides_what_it_names() -> None:
    own = {"model": "n", "temperature": 1.5, "concurrency": 2, "max_tokens": 9}
    made = teacher(temperature=0.2, roles={"write": own})
    write, solve = made.endpoint("write"), made.endpoint("solve")
    assert (write.model, write.temperature, write.concurrency, write.max_tokens) == ("n", 1.5, 2, 9)
    assert (solve.model, solve.temperature, solve.concurrency) == ("m", 0.2, 8)
    assert teacher(temperature="unset").endpoint("solve").temperature is None
    assert teacher().endpoint("solve").temperature == 0.7 and teacher().endpoint("label").temperature == 0


def test_a_key_goes_to_no_address_it_was_not_meant_for() -> None:
    moved = {"base_url": "https://elsewhere.example/v1"}
    prices = {"input": 1, "output": 2}
    made = teacher(
        key_variable="MY_KEY", prices=prices, extra_body={"a": 1}, roles={"solve": moved, "write": {"model": "n"}}
    )
    assert made.endpoint("solve")[3] is None and made.endpoint("solve").extra_body == {}
    assert made.endpoint("solve").prices is None and made.endpoint("write").prices is None
    assert made.endpoint("label").key_variable == made.endpoint("write").key_variable == "MY_KEY"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/v1",
        "https://user:s3cret@example.org/v1",
        "https://s3cret@example.org/v1",
        "https://example.org/v1?key=s3cret",
        "https://example.org/v1#s3cret",
        "http://127.0.0.1.s3cret.example/v1",
        "http://localhost@s3cret.example/v1",
        "ftp://127.0.0.1/s3cret",
        "s3cret",
        "https://[s3cret/v1",
        "https://exa mple/s3cret",
    ],
)
def test_addresses_that_nothing_should_be_sent_to_are_refused_without_repeating_them(url: str, tmp_path: Path) -> None:
    for keys in ({"base_url": url}, {"base_url": URL, "roles": {"solve": {"base_url": url}}}):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, {"kind": "llm", "model": "m"} | keys)
        assert "base_url" in str(caught.value) and "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:8/v1", "http://[::1]:8/v1", "http://localhost/v1"])
def test_https_and_this_machine_are_fine(url: str) -> None:
    assert teacher(base_url=url).endpoint("label").base_url == url


def load(folder: Path, teacher: dict[str, Any]) -> TeacherConfig:
    tree = yaml.safe_load((ROOT / "runs/configs/quickstart.yaml").read_text()) | {"teacher": teacher}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_config(path).teacher


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kind": "llm"}, "`teacher.model` and `teacher.base_url`"),
        ({"model": "m"}, "`teacher.model` is for `kind: llm`"),
        ({"kind": "llm", "model": "m", "base_url": URL, "key_variable": "sk-s3cret"}, "not shown: it could be a key"),
        ({"kind": "llm", "model": "m", "base_url": URL, "key_variable": "MINE"}, "expected a name with one of KEY, "),
        ({"kind": "llm", "model": "m", "base_url": URL, "budget": {"money": 1}}, "`budget.money` needs `prices`"),
        ({"kind": "llm", "model": "m", "base_url": URL, "labels": "data"}, "catalogue: {source: data}"),
        ({"kind": "llm", "model": "m", "base_url": URL, "catalogue": {"least": 9, "most": 3}}, "`least`"),
        ({"kind": "llm", "model": "m", "base_url": URL, "roles": {"paint": {}}}, "unknown key"),
    ],
)
def test_faults_are_said(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, keys)
    assert said in str(caught.value) and "s3cret" not in str(caught.value)


def test_limits_and_addresses_are_no_identity() -> None:
    path = ROOT / "runs/configs/llm-teacher.yaml"
    base = load_config(path)
    changed = ["budget.requests=1", "base_url=http://localhost/v1", "concurrency=2", "roles.solve.concurrency=3"]
    assert load_config(path, [f"teacher.{c}" for c in changed]).identity_hash == base.identity_hash
    for other in ("model=n", "roles.solve.model=n", "temperature=1", "catalogue.most=20"):
        assert load_config(path, [f"teacher.{other}"]).identity_hash != base.identity_hash


CATALOGUE = SkillCatalogue(teacher="t", skills=tuple(Skill(id=i, name=i, writable=True) for i in ("a", "b", "c")))


def edited(folder: Path, **changes: dict[str, Any] | None) -> tuple[list[str], dict[str, str | None]]:
    path = folder / "catalogue.yaml"
    write_catalogue(path, first_catalogue(CATALOGUE, approved=True))
    tree = yaml.safe_load(path.read_text()) | {"by": "Ada", "reason": "they are few"}
    for id_, change in changes.items():
        if change is None:
            del tree["skills"][id_]
        else:
            tree["skills"][id_] = tree["skills"].get(id_, {"name": id_}) | change
    path.write_text(yaml.safe_dump(tree))
    made, moved = edited_catalogue(CATALOGUE, read_catalogue(path), path)
    return [s.name for s in made.skills], moved


def test_skills_are_renamed_merged_and_dropped(tmp_path: Path) -> None:
    assert edited(tmp_path) == (["a", "b", "c"], {"a": "a", "b": "b", "c": "c"})
    assert edited(tmp_path, a={"name": "adding"})[0] == ["adding", "b", "c"]
    names, moved = edited(tmp_path, a={"into": "b"}, b={"into": "c"})
    assert (names, moved) == (["c"], {"a": "c", "b": "c", "c": "c"})
    names, moved = edited(tmp_path, a={"into": "b"}, c={"drop": True})
    assert (names, moved) == (["b"], {"a": "b", "b": "b", "c": None})
    assert mapped(("a", "c", "b"), moved) == ("b",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"a": {"into": "z"}}, "a: `into: z`"),
        ({"a": {"into": "b"}, "b": {"into": "a"}}, "is not a skill that stays"),
        ({"a": None}, "a: is missing; to drop it"),
        ({"z": {}}, "z: is not one of the proposed"),
        ({i: {"drop": True} for i in "abc"}, "no skill is left"),
        ({"a": {"name": "b"}}, "'b' is given twice"),
        ({"a": {"colour": "red"}}, "skills.a.colour"),
    ],
)
def test_edits_that_cannot_be_followed_are_said(
    changes: dict[str, dict[str, Any] | None], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="catalogue cannot be used") as caught:
        edited(tmp_path, **changes)
    assert said in str(caught.value)

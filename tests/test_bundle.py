"""A bundle is enough to audit a round; an audit finds numbers that their records do not give, hashes mended or not."""

import json
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import FakeChatServer
from command import tutelage
from finished_run import make_fake_run
from tampering import Files, Place, changed, dump, numbers, parse, read_bundle, rehashed, write_bundle
from test_llm_roles import config_of

from agents.bundle import verify_bundle
from curriculum.archive import read_archive, write_archive
from curriculum.audit import Audit
from curriculum.errors import BundleError

UNCHECKED = {
    "answers.jsonl": {"prompt_tokens", "completion_tokens"},
    "adapter.json": {"target_tokens"},
    "examples.jsonl": {"difficulty"},
    "extra-kept.jsonl": {"difficulty"},
}
"""Of a run over the rows of a file: what no other record gives. The tokens of a control's adapter are in no report."""
FLIPS = 36


def write_config(folder: Path, **sections: Any) -> Path:
    """Two rounds of the fake student with a control, drawn answers and a retention set; sections are laid over it."""
    drawn = random.Random(1)
    rows = [
        {
            "question": f"What is {n} plus {1000 - 7 * n}, said the {drawn.randrange(10**6)}th?",
            "gold": str(1000 - 6 * n),
            "skills": [("add", "count", "sort")[n % 3], *(["carry"] if n % 5 == 0 else [])],
            "difficulty": 1 + n // 3 % 3,
        }
        for n in range(120)
    ]
    kept = [{"question": f"Is {n} times 3 of kind {n * n}?", "gold": str(3 * n), "skills": ["add"]} for n in range(8)]
    for name, lines in (("items", rows), ("kept", kept)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"kind": "file", "format": "examples"}
    splits = {"probe": 16, "gate": 24, "final": 12}
    config: dict[str, Any] = {
        "rounds": 2,
        "runs_dir": str(folder),
        "data": source | {"path": str(folder / "items.jsonl"), "splits": splits},
        "extra": {"kept": source | {"path": str(folder / "kept.jsonl"), "items": 8, "retention": True}},
        "student": {"engine": "fake", "base": "fake", "max_new_tokens": 8, "signals": {"samples": 2}},
        "plan": {"rows_per_round": 30, "write_share": 0, "replay_rows": 6, "allocation": "expected_gain"},
        "control": "last_round",
        "training": {"epochs": 1},
        "gate": {"retrain_sd": 0.0, "alpha": 0.4},
    }
    for name, section in sections.items():
        config[name] = config.get(name, {}) | section if isinstance(section, dict) else section
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def bundled(folder: Path, *args: str) -> Path:
    """The bundle of the run in a folder."""
    file = folder / "bundle.zip"
    done = tutelage("bundle", folder / "run", "--to", file, *args)
    assert done.code == 0, done.err
    return file


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    done = tutelage("run", write_config(folder), "--name", "run")
    assert done.code == 0, done.err
    return bundled(folder)


@pytest.fixture(scope="module")
def files(bundle: Path) -> Files:
    return read_bundle(bundle)


def audited(files: Files, folder: Path) -> Audit:
    return verify_bundle(write_bundle(folder / "forged.zip", files))


def test_a_bundle_verifies_and_says_what_it_could_not_make_again(bundle: Path) -> None:
    done = tutelage("verify", bundle, "--json")
    assert done.code == 0, done.out + done.err
    assert "no difference" in done.out
    told = {(part["part"], part["why"]) for part in done.last["not_recomputed"]}
    assert {part for part, _ in told} == {"items and splits", "trainings"}
    counts = {part["part"]: part for part in done.last["parts"]}
    assert counts["gate decisions"]["agree"] > 100 and counts["gate decisions"]["taken"] == 0
    assert counts["trainings"]["taken"] > 0


def test_the_same_run_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    assert tutelage("bundle", bundle.parent / "run", "--to", again).code == 0
    assert again.read_bytes() == bundle.read_bytes()
    taken = tutelage("bundle", bundle.parent / "run", "--to", again)
    assert taken.code == 2 and "this file exists" in taken.err


def test_a_bundle_of_an_earlier_round_has_nothing_of_later_ones(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "first.zip"
    assert tutelage("bundle", bundle.parent / "run", "--round", "1", "--to", file).code == 0
    files = read_bundle(file)
    assert not any(name.startswith(("round_02", "final", "report.json")) for name in files)
    assert not verify_bundle(file).differences
    late = tutelage("bundle", bundle.parent / "run", "--round", "3", "--to", tmp_path / "late.zip")
    assert late.code == 2 and "0 to 2" in late.err


def places(files: Files) -> list[Place]:
    """One number of every kind of field, seeded; configs and manifests are about the run, not of it."""
    kinds: dict[tuple[str, ...], list[Place]] = {}
    for name, keys in numbers(files):
        file = name.rpartition("/")[2]
        words = [key for key in keys if isinstance(key, str)]
        if file in ("config.yaml", "run.json", "manifest.json") or UNCHECKED.get(file, set()) & set(words):
            continue
        folder = name.split("/")[-2] if name.startswith("answers/") or "/" in name else ""
        kinds.setdefault((folder, file, *words[-2:]), []).append((name, keys))
    drawn = random.Random(7)
    one_each = [drawn.choice(of) for _, of in sorted(kinds.items())]
    return drawn.sample(one_each, FLIPS)


def test_a_changed_number_is_found_wherever_it_is_though_every_hash_was_mended(files: Files, tmp_path: Path) -> None:
    missed = []
    for place in places(files):
        found = audited(changed(files, place, lambda v: v + 1 if isinstance(v, int) else v * 1.01 + 0.001), tmp_path)
        name = place[0]
        if not any(name.rpartition("/")[0] in d.file or d.file == "bundle" for d in found.differences):
            missed.append(place)
    assert missed == []


def grade_right(files: Files) -> Files:
    name = "answers/base/gate/grades.jsonl"
    grades = parse(name, files[name])
    wrong = next(grade for grade in grades if grade["verdict"] != "correct")
    wrong |= {"verdict": "correct", "strict_verdict": "correct"}
    return rehashed(files | {name: dump(name, grades)})


def answer_otherwise(files: Files) -> Files:
    name = "answers/base/probe/answers.jsonl"
    return changed(files, (name, (0, "text")), lambda text: "Answer: no idea" if "idea" not in text else "Answer: 1")


def decide_otherwise(files: Files) -> Files:
    other = {"accepted": "rolled_back", "rolled_back": "accepted"}
    return changed(files, ("round_01/gate/decision.json", ("decision",)), lambda decision: other[decision])


def leave_out_a_row(files: Files) -> Files:
    name = "round_01/build/training_set.jsonl"
    return rehashed(files | {name: b"".join(files[name].splitlines(True)[1:])})


def leave_out_a_diagnosis(files: Files) -> Files:
    name = "round_01/diagnose/diagnoses.jsonl"
    return rehashed(files | {name: b"".join(files[name].splitlines(True)[1:])})


def leave_out_an_answer(files: Files) -> Files:
    name = "answers/base/gate/answers.jsonl"
    return rehashed(files | {name: b"".join(files[name].splitlines(True)[1:])})


def leave_out_a_stage(files: Files) -> Files:
    return rehashed({name: of for name, of in files.items() if not name.startswith("round_01/diagnose/")})


def add_a_file(files: Files) -> Files:
    return rehashed(files | {"round_01/gate2/decision.json": files["round_01/gate/decision.json"]})


def say_it_twice(files: Files) -> Files:
    """Readers that take the first of two values see another decision."""
    name = "round_01/gate/decision.json"
    return rehashed(files | {name: files[name].replace(b"{\n", b'{\n "decision": "accepted",\n', 1)})


def approve_another_plan(files: Files) -> Files:
    name = "round_01/approve/plan.approved.yaml"
    return changed(files, (name, ("plan", "skills", 0, "pool_rows")), lambda rows: rows + 1)


def another_alpha(files: Files) -> Files:
    """With the identity of the whole run changed to match."""
    made = changed(files, ("config.yaml", ("gate", "alpha")), lambda alpha: 0.3)
    made = changed(made, ("run.json", ("identity", "gate", "alpha")), lambda alpha: 0.3)
    from curriculum.records import content_id

    identity = content_id(parse("run.json", made["run.json"])["identity"], 64)
    for name in [name for name in made if name.endswith("/done.json")]:
        done = parse(name, made[name])
        made[name] = dump(name, done | {"inputs": done["inputs"] | {"identity": identity}})
    return rehashed(made)


def another_alpha_in_the_config(files: Files) -> Files:
    return changed(files, ("config.yaml", ("gate", "alpha")), lambda alpha: 0.3)


def damage(files: Files) -> Files:
    """Without mending a hash."""
    name = "round_01/report/report.json"
    return files | {name: files[name] + b" "}


FORGERIES: list[tuple[Callable[[Files], Files], str, str]] = [
    (grade_right, "answers/base/gate/grades.jsonl", "verdict"),
    (answer_otherwise, "answers/base/probe/grades.jsonl", "extracted"),
    (decide_otherwise, "round_01/gate/decision.json", "decision"),
    (leave_out_a_row, "round_01/build/training_set.jsonl", ""),
    (leave_out_a_diagnosis, "round_01/diagnose/diagnoses.jsonl", ""),
    (leave_out_an_answer, "answers/base/gate", ""),
    (leave_out_a_stage, "bundle", ""),
    (add_a_file, "round_01/gate2/decision.json", ""),
    (say_it_twice, "round_01/gate/decision.json", ""),
    (approve_another_plan, "round_01/approve/plan.approved.yaml", "plan.skills[0].pool_rows"),
    (another_alpha, "round_01/gate/decision.json", "level"),
    (another_alpha_in_the_config, "config.yaml", "gate.alpha"),
    (damage, "round_01/report/report.json", "SHA-256"),
]


@pytest.mark.parametrize(("forge", "file", "field"), FORGERIES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_forgery_is_named(
    files: Files, tmp_path: Path, forge: Callable[[Files], Files], file: str, field: str
) -> None:
    found = audited(forge(files), tmp_path)
    assert any(d.file.startswith(file) and field in d.field for d in found.differences), found.differences[:5]


def test_the_command_prints_what_was_expected_and_what_was_found_and_exits_with_1(files: Files, tmp_path: Path) -> None:
    forged = changed(files, ("round_01/profile/profile.json", ("overall", "correct")), lambda n: n + 1)
    done = tutelage("verify", write_bundle(tmp_path / "forged.zip", forged), "--json")
    assert done.code == 1
    right = parse("profile.json", files["round_01/profile/profile.json"])["overall"]["correct"]
    assert f"round_01/profile/profile.json overall.correct: expected {right}, got {right + 1}" in done.out
    assert done.last["status"] == "differs"
    where = [d["file"] for d in done.last["differences"]]
    assert where == ["round_01/profile/profile.json", "round_01/report/report.json"]


def test_texts_of_a_forger_do_not_reach_the_terminal_as_they_are(files: Files, tmp_path: Path) -> None:
    evil = "\x1b]0;pwned\x07\x1b[31m[red]\u202e"
    forged = changed(files, ("round_01/gate/decision.json", ("reason",)), lambda text: evil)
    done = tutelage("verify", write_bundle(tmp_path / "forged.zip", forged))
    assert done.code == 1
    assert not {"\x1b", "\x07", "\u202e"} & set(done.out + done.err)
    assert "[red]" in done.out


def test_generated_items_are_generated_again(tmp_path: Path) -> None:
    make_fake_run(tmp_path, "--set", "rounds=1")
    files = read_bundle(bundled(tmp_path))
    made = verify_bundle(tmp_path / "bundle.zip")
    assert not made.differences and {part.part for part in made.not_recomputed} == {"trainings"}
    found = audited(changed(files, ("prepare/examples.jsonl", (3, "difficulty")), lambda d: d + 1), tmp_path)
    assert any(d.file == "prepare/examples.jsonl" and d.field == "[3].difficulty" for d in found.differences)


def test_a_users_grader_is_never_run(tmp_path: Path) -> None:
    own = {"grader": "python", "grader_function": "mine:same"}
    config = write_config(tmp_path, data=own, student={"signals": None}, control="none", rounds=1)
    (tmp_path / "mine.py").write_text("def same(question, gold, answer):\n    return gold == answer\n")
    done = tutelage("run", config, "--name", "run", cwd=tmp_path)
    assert done.code == 0, done.err
    file = bundled(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit(77)\n")
    verified = tutelage("verify", file, cwd=tmp_path)
    assert verified.code == 0, verified.out + verified.err
    assert "not recomputed: answers and grades: user grader" in verified.out


@pytest.mark.real
def test_an_llms_plans_are_held_to_their_bounds(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        done = tutelage("run", config_of(tmp_path, server), "--name", "run")
    assert done.code == 0, done.err
    file = bundled(tmp_path)
    assert not verify_bundle(file).differences
    files = read_bundle(file)
    name = "round_01/plan/plan.proposed.yaml"
    assert parse(name, files[name])["by"] == "llm"
    found = audited(changed(files, (name, ("skills", 0, "pool_rows")), lambda rows: rows + 100), tmp_path)
    assert any(d.file == "round_01/plan" and "too many" in d.got for d in found.differences)


def test_weights_are_in_a_bundle_that_is_asked_for_them(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "heavy.zip"
    assert tutelage("bundle", bundle.parent / "run", "--weights", "--to", file).code == 0
    files = read_bundle(file)
    made = verify_bundle(file)
    assert not made.differences and "trainings" not in {part.part for part in made.not_recomputed}
    name = next(name for name in files if name.endswith("/rows.json"))
    found = audited(rehashed(files | {name: b"{}"}), tmp_path)
    assert any(d.file.endswith("adapter.json") and d.field == "files.rows.json" for d in found.differences)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.weights=ica", "embeddings: no weights answer here"),
        ("training.loss=dft", "the weights are not in the bundle"),
        ("plan.rank=embed_sel", "embeddings: no weights answer here"),
    ],
)
def test_what_only_weights_can_say_is_told_and_all_else_verifies(tmp_path: Path, setting: str, said: str) -> None:
    done = tutelage("run", write_config(tmp_path), "--name", "run", "--set", "rounds=1", "--set", setting)
    assert done.code == 0, done.err
    made = verify_bundle(bundled(tmp_path))
    assert not made.differences and made.round == 1
    assert any(said in part.why for part in made.not_recomputed)


def test_an_extended_run_and_a_fork_verify(bundle: Path, tmp_path: Path) -> None:
    done = tutelage("fork", bundle.parent / "run", "--round", "1", "--name", "forked", "--set", "seed=5")
    assert done.code == 0, done.err
    forked = bundle.parent / "forked"
    assert tutelage("resume", forked, "--extend", "1").code == 0
    file = tmp_path / "forked.zip"
    assert tutelage("bundle", forked, "--to", file).code == 0
    made = verify_bundle(file)
    assert not made.differences and made.round == 3
    assert any("taken over by a fork" in part.why for part in made.not_recomputed)


def test_a_persons_decision_is_told_and_followed(bundle: Path, files: Files, tmp_path: Path) -> None:
    name = "round_01/approve/plan.approved.yaml"
    forged = changed(files, (name, ("by",)), lambda by: "Ada")
    found = audited(forged, tmp_path)
    assert any("Approved by Ada" in note and "Nothing was changed" in note for note in found.notes)
    assert {d.field for d in found.differences} == {"approval"}  # the round's report says that nobody decided
    found = audited(changed(forged, (name, ("plan", "skills", 0, "pool_rows")), lambda rows: rows + 1), tmp_path)
    assert any("pool rows" in note for note in found.notes)
    assert any(d.file == "round_01/build/training_set.jsonl" for d in found.differences)


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    made.compress_type = zipfile.ZIP_DEFLATED
    return made


HOSTILE: dict[str, list[tuple[zipfile.ZipInfo, bytes]]] = {
    "up": [(entry("run/../../out"), b"x")],
    "absolute": [(entry("/tmp/out"), b"x")],
    "backslash": [(entry("run\\out"), b"x")],
    "drive": [(entry("c:/out"), b"x")],
    "hidden": [(entry("run/.bashrc"), b"x")],
    "control": [(entry("run/a\x1b[31m"), b"x")],
    "long": [(entry("run/" + "a" * 300), b"x")],
    "link": [(entry("run/link", stat.S_IFLNK | 0o777), b"/etc/passwd")],
    "device": [(entry("run/null", stat.S_IFCHR | 0o666), b"")],
    "pipe": [(entry("run/pipe", stat.S_IFIFO | 0o666), b"")],
    "folder": [(entry("run/folder/", stat.S_IFDIR | 0o755), b"")],
    "case": [(entry("run/a.json"), b"1"), (entry("RUN/A.json"), b"2")],
    "file and folder": [(entry("run/a"), b"1"), (entry("run/a/b"), b"2")],
    "bomb": [(entry("run/big.jsonl"), b"0" * (40 << 20))],
    "large": [(entry("run/big.jsonl"), b"0" * ((256 << 20) + 1))],
    "two runs": [(entry("run/manifest.json"), b"{}"), (entry("other/manifest.json"), b"{}")],
    "no manifest": [(entry("run/config.yaml"), b"rounds: 1\n")],
    "no run": [(entry("manifest.json"), b"{}")],
    "empty": [],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    file, folder = tmp_path / "hostile.zip", tmp_path / "within" / "folder"
    with zipfile.ZipFile(file, "w") as archive:
        for info, contents in HOSTILE[kind]:
            archive.writestr(info, contents)
    folder.mkdir(parents=True)
    with pytest.raises(BundleError):
        verify_bundle(file)
    try:
        read_archive(file, folder)
    except BundleError:
        assert list(folder.rglob("*")) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hostile.zip", "within"]


BROKEN = {
    "no zip": b"hello",
    "nothing": b"",
    "cut": b"PK\x05\x06" + b"\0" * 10,
    "a list of two gigabytes": b"PK\x05\x06" + b"\0" * 6 + b"\xff\xff" + b"\xff\xff\xff\x7f" + b"\0" * 6,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_archive_exits_with_2_and_one_message(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.zip"
    file.write_bytes(BROKEN[kind])
    done = tutelage("verify", file)
    assert done.code == 2 and done.err.startswith("error: ") and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("config.yaml", b"a: &a [x]\nb: [*a, *a]\n"),
        ("config.yaml", b"[" * 100_000),
        ("config.yaml", b"no: config\n"),
        ("run.json", b"[" * 100_000),
        ("run.json", b"[]"),
        ("manifest.json", b'{"schema_version": 2}'),
        ("round_01/plan/plan.proposed.yaml", b"x: &x [1]\ny: *x\n"),
    ],
)
def test_documents_that_would_hang_or_break_a_reader_are_refused(
    files: Files, tmp_path: Path, name: str, contents: bytes
) -> None:
    with pytest.raises(BundleError):
        audited(files | {name: contents}, tmp_path)


@pytest.mark.parametrize("contents", [b"[" * 100_000, b"null", b"{}", b"\xff\xfe", b'{"outputs": 3}', b"1e999"])
@pytest.mark.parametrize(
    "name", ["round_01/gate/decision.json", "round_01/gate/done.json", "answers/base/gate/grades.jsonl"]
)
def test_records_that_are_none_are_differences(files: Files, tmp_path: Path, name: str, contents: bytes) -> None:
    assert audited(files | {name: contents}, tmp_path).differences


def test_a_record_cannot_name_a_folder_outside_of_the_run(files: Files, tmp_path: Path) -> None:
    forged = changed(files, ("round_01/gate/decision.json", ("candidate",)), lambda name: "../../../../etc")
    assert audited(forged, tmp_path).differences


def test_an_archive_gives_back_what_was_written(tmp_path: Path) -> None:
    file, folder = tmp_path / "a.zip", tmp_path / "a"
    folder.mkdir()
    write_archive(file, {"run/b": b"2", "run/a b/ä": b""})
    assert read_archive(file, folder) == ["run/a b/ä", "run/b"]
    assert (folder / "run/b").read_bytes() == b"2" and (folder / "run/a b/ä").read_bytes() == b""

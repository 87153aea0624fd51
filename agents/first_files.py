"""A new run's first files: its config, and what made it."""

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from curriculum.config import Config
from curriculum.rundir import write_atomic, write_json

CHANGES = "config_changes.jsonl"
"""Beside the config: the operational keys that were changed after the run began."""
LIBRARIES = ("torch", "transformers", "peft", "langgraph", "reasoning-gym", "math-verify")


def write_first_files(
    folder: Path, name: str, config: Config, origin: Mapping[str, Any], file: str = "run.json"
) -> None:
    """Writes a new run's config and its `run.json`, which a bench has under another name; only a fork has an origin."""
    write_config(folder, config)
    commit, dirty = _git()
    facts = {
        "schema_version": 1,
        "run": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tutelage": metadata.version("tutelage"),
        "commit": commit,
        "uncommitted_changes": dirty,
        "python": platform.python_version(),
        "libraries": {library: metadata.version(library) for library in LIBRARIES},
        "identity": config.identity(),
    }
    write_json(folder / file, facts | dict(origin))


def write_config(path: Path, config: Config) -> None:
    """Writes the whole config, defaults included."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(path / "config.yaml", text)


def _git() -> tuple[str | None, bool | None]:
    """The commit of this checkout and whether it was changed; nothing outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit.stdout.strip(), bool(status.stdout.strip())

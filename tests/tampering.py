"""A forger of bundles: changes one value of one file, and then mends every hash that would tell."""

import json
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from curriculum.records import canonical_json, content_id

Files = dict[str, bytes]
"""Path within the run → contents."""
Place = tuple[str, tuple[str | int, ...]]
"""A file, and the keys that lead to a value in it."""


def read_bundle(path: Path) -> Files:
    """The files of a bundle, without the run's name before them."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write_bundle(path: Path, files: Files, run: str = "run") -> Path:
    """The files as a bundle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(f"{run}/{name}", contents)
    return path


def parse(name: str, contents: bytes) -> Any:
    """A document of a run as plain values; none where it is no document."""
    if name.endswith(".json"):
        return json.loads(contents)
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in contents.splitlines()]
    return yaml.safe_load(contents) if name.endswith(".yaml") else None


def dump(name: str, value: Any) -> bytes:
    """The same as the program writes it."""
    if name.endswith(".json"):
        return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
    if name.endswith(".jsonl"):
        return "".join(canonical_json(line) + "\n" for line in value).encode()
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).encode()


def numbers(files: Files) -> Iterator[Place]:
    """Every number of every document."""

    def within(value: Any, keys: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        if isinstance(value, dict):
            for key, part in value.items():
                yield from within(part, (*keys, key))
        elif isinstance(value, list):
            for at, part in enumerate(value):
                yield from within(part, (*keys, at))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield keys

    for name, contents in sorted(files.items()):
        for keys in within(parse(name, contents), ()):
            yield name, keys


def changed(files: Files, place: Place, change: Any) -> Files:
    """The files with one value changed, and all hashes put right."""
    name, keys = place
    value = parse(name, files[name])
    of = value
    for key in keys[:-1]:
        of = of[key]
    of[keys[-1]] = change(of[keys[-1]])
    return rehashed(files | {name: dump(name, value)})


def rehashed(files: Files) -> Files:
    """The files with the hashes of every stage, of what was made from it, and of the manifest put right."""
    made = dict(files)
    stages = {name.removesuffix("/done.json"): parse(name, made[name]) for name in made if name.endswith("/done.json")}
    for stage, done in stages.items():
        there = {output: made[f"{stage}/{output}"] for output in done["outputs"] if f"{stage}/{output}" in made}
        done["outputs"] |= {output: sha256(contents).hexdigest() for output, contents in there.items()}
    for stage, done in stages.items():
        read = {key: content_id(stages[key]["outputs"], 64) for key in done["inputs"] if key in stages}
        done["inputs"] |= read
        if "examples" in done["inputs"]:
            done["inputs"]["examples"] = content_id(stages["prepare"]["outputs"], 64)
        done["inputs_hash"] = content_id(done["inputs"], 64)
        made[f"{stage}/done.json"] = dump("done.json", done)
    manifest = parse("manifest.json", made.pop("manifest.json"))
    manifest["files"] = {name: sha256(contents).hexdigest() for name, contents in sorted(made.items())}
    return made | {"manifest.json": dump("manifest.json", manifest)}

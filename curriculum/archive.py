"""Many files in one: a zip whose bytes depend on its files alone, and reading one that nobody vouches for.

An archive may come from anywhere. Only regular files are taken, under plain relative names, up to limits of count and
size, each written with what its entry says and never more. Nothing in it is run or interpreted here.
"""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from curriculum.errors import BundleError
from curriculum.rows import printable

MOST_FILES = 20_000
MOST_FILE_BYTES = 256 << 20
"""Of a file of records, which is read whole."""
MOST_WEIGHT_BYTES = 8 << 30
"""Of a `.safetensors` file, which is only hashed."""
MOST_BYTES = 16 << 30
"""Of all files together, unpacked."""
MOST_RATIO = 200
"""Bytes unpacked for each byte of the archive; records of runs have ten to thirty."""
MOST_NAME = 255
FREE_BYTES = 1 << 20
"""Unpacked bytes that any archive may have, whatever its ratio."""
DIRECTORY_BYTES = 8 << 20
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x07"
_END_SIZE, _COMMENT = 22, 1 << 16
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, files: Mapping[str, Path | bytes]) -> None:
    """Writes files, or their contents, under the given names; the same files give the same bytes.

    Raises:
        BundleError: a file, or all together, are larger than what is read again.
    """
    sizes = {name: len(of) if isinstance(of, bytes) else of.stat().st_size for name, of in files.items()}
    for name, size in sizes.items():
        if size > _limit(name):
            raise BundleError(f"{name}: expected a file of at most {_limit(name) >> 20} MiB, got {size >> 20} MiB")
    if sum(sizes.values()) > MOST_BYTES or len(sizes) > MOST_FILES:
        raise BundleError(
            f"{path}: expected at most {MOST_FILES} files of {MOST_BYTES >> 30} GiB together, got {len(sizes)} of "
            f"{sum(sizes.values()) >> 30} GiB"
        )
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with zipfile.ZipFile(draft, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, sizes[name]
                of = files[name]
                with archive.open(entry, "w") as to:
                    if isinstance(of, bytes):
                        to.write(of)
                    else:
                        with of.open("rb") as file:
                            shutil.copyfileobj(file, to)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_archive(path: Path, folder: Path) -> list[str]:
    """Unpacks an archive that may be hostile into an empty folder; returns the names of its files, sorted.

    Raises:
        BundleError: not a zip, damaged, or with an entry that is no plain file under a plain name, or is too large.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(path, entries)
            for entry in entries:
                _unpack(archive, entry, folder / entry.filename)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f"{path}: expected a bundle, got a file that cannot be unpacked: {printable(str(error))}. Ask for it again"
        ) from None
    except FileNotFoundError:
        raise BundleError(f"{path}: expected a bundle, got no file") from None
    return sorted(entry.filename for entry in entries)


def _check_directory(path: Path) -> None:
    """The list of entries is read whole by the library: it may not be endless."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_SIZE - _COMMENT - 20))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        raise BundleError(f"{path}: expected a bundle, got a file that is no zip")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little")
    if listed > DIRECTORY_BYTES or _END_64 in tail[max(0, at - 20) : at]:
        raise BundleError(f"{path}: expected a list of at most {MOST_FILES} files, got a longer one")


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_FILES:
        raise BundleError(f"{path}: expected at most {MOST_FILES} files, got {len(entries)}")
    names = [entry.filename for entry in entries]
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    folded = {name.casefold() for name in names}
    if len(folded) < len(names) or folders & set(names):
        raise BundleError(f"{path}: expected every file once, got one twice, or as a file and a folder")
    for entry in entries:
        fault = _fault(entry)
        if fault:
            raise BundleError(f"{path}: {printable(entry.orig_filename)}: {fault}")
    total = sum(entry.file_size for entry in entries)
    most = min(MOST_BYTES, MOST_RATIO * path.stat().st_size + FREE_BYTES)
    if total > most:
        raise BundleError(f"{path}: expected at most {most:,} bytes unpacked, got {total:,}")


def _fault(entry: zipfile.ZipInfo) -> str | None:
    name = entry.filename
    parts = name.split("/")
    plain = name == entry.orig_filename and name.isprintable() and len(name.encode()) <= 4 * MOST_NAME
    if not plain or any(c in name for c in '\\:*?"<>|'):
        return "expected a name of printable characters"
    if any(not part or part.startswith(".") or len(part.encode()) > MOST_NAME for part in parts):
        return "expected a relative path of plain names, none of which begins with a dot"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG) or entry.is_dir():
        return "expected a regular file, got a link, a folder or a device"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
        return "expected a file stored or deflated, not encrypted"
    if entry.file_size > _limit(name):
        return f"expected at most {_limit(name) >> 20} MiB, got {entry.file_size >> 20} MiB"
    return None


def _limit(name: str) -> int:
    return MOST_WEIGHT_BYTES if name.endswith(".safetensors") else MOST_FILE_BYTES


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    # The library gives no more than the entry's size, and checks its sum.
    with archive.open(entry) as source, to.open("xb") as target:
        shutil.copyfileobj(source, target)
    if to.stat().st_size != entry.file_size:
        raise BundleError(f"{printable(entry.filename)}: expected {entry.file_size} bytes, got {to.stat().st_size}")

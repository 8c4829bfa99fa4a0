"""Arrays prepared once and kept in a cache folder, under a digest of all they depend on."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Progress", "cache_folder", "cached_arrays", "progress_bar"]

Progress = Callable[[int, int], None]
"""Told how much is done, of how much; a total of 0 means that it is not known."""

_FORMAT = 1
"""Version of the layout below, part of every key: raised when the layout changes."""

_STALE_SECONDS = 3600.0
"""A temporary folder untouched for so long was left by a process that was killed."""


def cached_arrays(
    name: str, key: Mapping[str, Any], build: Callable[[Progress], Mapping[str, Any]]
) -> dict[str, Any]:
    """What `build` makes, from the cache when it was made before.

    An entry is a folder with one .npy file for each array and a `meta.json` with the rest. It is
    written under a temporary name and renamed when complete, so that an entry is whole or absent:
    processes that build the same one at once do not disturb each other, the first to finish wins.

    Args:
        name: what the arrays are, the beginning of the folder's name.
        key: everything that the arrays depend on, as values JSON can hold: digests of the source
            files, the parameters, and a version of the preparation. Equal keys share an entry.
        build: called with a progress callback when there is no entry; returns arrays and values
            that JSON can hold, by name.

    Returns:
        What `build` returned. Arrays are memory maps that are copied where they are written to, so
        several processes share one copy; tuples come back as lists.

    Raises:
        OSError: when the cache cannot be written; nothing is left behind.
    """
    key_text = json.dumps({"format": _FORMAT, **key}, sort_keys=True)
    digest = hashlib.sha256(key_text.encode()).hexdigest()
    entry = cache_folder() / "arrays" / f"{name}-{digest[:16]}"
    values = _load(entry, key_text)
    if values is None:
        with progress_bar(f"Preparing {name} (once)") as progress:
            built = build(progress)
        _store(entry, key_text, built)
        values = _load(entry, key_text)
    if values is None:
        raise OSError(f"The cache entry {entry} disappeared while it was read. Try again.")
    return values


def cache_folder() -> Path:
    """Where kshot keeps what it can make or download again; the variable KSHOT_CACHE sets it."""
    if chosen := os.environ.get("KSHOT_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "kshot"


@contextmanager
def progress_bar(description: str) -> Iterator[Progress]:
    """A bar on standard error while something lasts, when that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    # Imported here, since most calls find their cache entry and show nothing.
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _load(entry: Path, key_text: str) -> dict[str, Any] | None:
    """The values of an entry; None when it is absent or, with a warning, when it is damaged."""
    if not entry.is_dir():
        return None
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if meta["key"] != key_text:
            raise ValueError("it was made under another key")
        values = dict(meta["values"])
        for array_name, num_bytes in meta["arrays"].items():
            file = entry / f"{array_name}.npy"
            if file.stat().st_size != num_bytes:
                raise ValueError(f"{file.name} has {file.stat().st_size} bytes, not {num_bytes}")
            values[array_name] = np.asarray(np.load(file, mmap_mode="c", allow_pickle=False))
        return values
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"The cache entry {entry} is damaged ({error}); rebuilding it.", stacklevel=3)
        _remove(entry)
        return None


def _store(entry: Path, key_text: str, built: Mapping[str, Any]) -> None:
    """Write an entry, unless another process has written it meanwhile."""
    arrays = {name: value for name, value in built.items() if isinstance(value, np.ndarray)}
    values = {name: value for name, value in built.items() if name not in arrays}
    # Not `tempfile`: its folders are private, and a cache may be shared by a group of users.
    temporary = entry.with_name(f"{entry.name}.{secrets.token_hex(4)}.tmp")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(entry.parent)
        temporary.mkdir()
        sizes = {name: _write(temporary / f"{name}.npy", array) for name, array in arrays.items()}
        meta = {"key": key_text, "arrays": sizes, "values": values}
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        try:
            temporary.rename(entry)
        except OSError:
            if not entry.is_dir():
                raise
    except OSError as error:
        raise _explained(error, entry.parent, arrays) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(file: Path, array: np.ndarray) -> int:
    """Write an array in NumPy's format; returns the size of the file in bytes."""
    array = np.ascontiguousarray(array)
    with file.open("wb") as stream:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(stream, header)
        # Not `np.save`: on a full disk it raises an error that does not say so.
        stream.write(array.data)
    return file.stat().st_size


def _explained(error: OSError, folder: Path, arrays: Mapping[str, np.ndarray]) -> OSError:
    """The error of a failed write, saying what it was for and how to mend it."""
    megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
    reason = (
        "the disk is full"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else error.strerror or str(error)
    )
    return OSError(
        error.errno,
        f"Cannot write {megabytes:.0f} MB of prepared data: {reason}. Free some space or set the "
        "environment variable KSHOT_CACHE to a folder that can be written",
        str(folder),
    )


def _remove_stale(folder: Path) -> None:
    for temporary in folder.glob("*.tmp"):
        try:
            touched = max(path.stat().st_mtime for path in (temporary, *temporary.iterdir()))
        except FileNotFoundError:
            continue  # its owner has finished, or another process is removing it
        if time.time() - touched > _STALE_SECONDS:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove(entry: Path) -> None:
    """Take an entry away in one step, so that no process sees half of it."""
    doomed = entry.with_name(f"{entry.name}.{secrets.token_hex(4)}.tmp")
    try:
        entry.rename(doomed)
    except FileNotFoundError:
        return  # another process was faster
    shutil.rmtree(doomed, ignore_errors=True)

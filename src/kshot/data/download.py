"""Downloads that resume after a cut, try several mirrors and never leave a file unverified."""

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from kshot.data.cache import Progress, progress_bar

__all__ = ["DownloadError", "download"]

_TIMEOUT_SECONDS = 30.0
_IDLE_SECONDS = 4 * _TIMEOUT_SECONDS
"""A part not written to for so long belongs to no living process: each would have timed out."""

_BLOCK_BYTES = 1 << 16


class DownloadError(OSError):
    """A file could not be had from any mirror."""


def download(
    name: str,
    file: str,
    mirrors: Sequence[str],
    *,
    folder: Path,
    sha256: str | None = None,
    md5: str | None = None,
    hint: str = "",
) -> Path:
    """Fetch a file of known content into a folder, unless it is there already.

    What has arrived is kept in a `.part` file, so that a later call goes on where a cut came; the
    file gets its own name only when its digest is right.

    Args:
        name: the data set, for messages.
        file: the file's name in `folder`.
        mirrors: addresses of the same file, tried in order.
        folder: where to put it; made when it is missing.
        sha256: the file's digest, as hexadecimal text.
        md5: its digest where only this one is published.
        hint: what else the user can do, the end of the message when all mirrors fail.

    Returns:
        The path of the file.

    Raises:
        DownloadError: when no mirror gives the file; says what happened with each.
    """
    algorithm, expected = ("sha256", sha256) if sha256 else ("md5", md5)
    if expected is None:
        raise ValueError(f"The download of {file} needs a sha256 or md5 digest to check it by.")
    target = folder / file
    if target.exists() and _digest(target, algorithm) == expected:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    with _claimed_part(target) as part, progress_bar(f"Downloading {file}") as progress:
        for mirror in mirrors:
            problem = _fetch_verified(mirror, part, algorithm, expected, progress)
            if problem is None:
                part.replace(target)
                return target
            failures.append(f"\n  {mirror}: {problem}")
    raise DownloadError(
        f"Could not download {file} of {name}:{''.join(failures)}\n"
        f"Try again later (what has arrived is kept), or put the file into {folder} by hand."
        + (f" {hint}" if hint else "")
    )


def _fetch_verified(
    url: str, part: Path, algorithm: str, expected: str, progress: Progress
) -> str | None:
    """Complete `part` from a mirror; returns what went wrong, None when its digest is right."""
    resumed = part.exists()
    while True:
        before = _size(part)
        try:
            _fetch(url, part, progress)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if _size(part) > before:
                continue  # the line was cut on the way: go on from there
            return str(error) or type(error).__name__
        actual = _digest(part, algorithm)
        if actual == expected:
            return None
        part.unlink()
        if not resumed:
            return (
                f"the file has {algorithm} {actual}, expected {expected}: it is damaged or "
                "another version, and was deleted"
            )
        resumed = False  # the old part may be at fault: once more from the start


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Append to `part` what it lacks; raises when the connection ends before the file does."""
    done = _size(part)
    headers = {"User-Agent": "kshot"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == 416 and done:
            return  # nothing lies beyond what we have: the digest decides
        raise
    with response:
        if done and response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            mode = "ab"
        else:
            mode, done = "wb", 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else 0
        with part.open(mode) as stream:
            while block := response.read(_BLOCK_BYTES):
                stream.write(block)
                done += len(block)
                progress(done, total)
    if done < total:
        raise ConnectionError(f"the connection was cut after {done} of {total} bytes")


@contextmanager
def _claimed_part(target: Path) -> Iterator[Path]:
    """A part of the file that is this process's alone: one left by an earlier run, or a new one."""
    free = target.with_name(f"{target.name}.part")
    mine = target.with_name(f"{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    for part in sorted(target.parent.glob(f"{target.name}*.part")):
        try:
            if part == free or time.time() - part.stat().st_mtime > _IDLE_SECONDS:
                part.rename(mine)
                mine.touch()
                break
        except FileNotFoundError:
            continue  # another process claimed it first
    try:
        yield mine
    finally:
        if mine.exists():
            mine.replace(free)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        # Against accidents, not attacks: md5 serves, also where policy forbids it for security.
        return hashlib.file_digest(
            stream, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

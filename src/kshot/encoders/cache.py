"""Embeddings kept on disk: each picture or text is embedded once by each encoder."""

import errno
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Float, Int64, UInt8

from kshot.data.atomic import write_atomically
from kshot.data.cache import Progress, cache_folder, progress_bar
from kshot.encoders.encoder import Encoder, check_list, record_failures

__all__ = ["EmbeddingCache", "StoredEmbeddings", "encode_cached"]

_KEY_BYTES = 32


class EmbeddingCache:
    """A folder with a folder for each encoder, named by its fingerprint.

    Args:
        folder: where; by default `embeddings` in kshot's cache folder. It may be deleted at any
            time that no program uses it.

    Example:
        >>> stored = EmbeddingCache().open(encoder)  # doctest: +SKIP
        >>> scores = stored.embeddings[:1000] @ prototype  # reads 1000 rows  # doctest: +SKIP
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "embeddings" if folder is None else folder

    def open(self, encoder: Encoder) -> "StoredEmbeddings":
        """What is stored of an encoder.

        Raises:
            OSError: when the folder cannot be written.
            ValueError: when the encoder has no fingerprint, or shares one with another encoder.
        """
        return StoredEmbeddings(self.folder / encoder.fingerprint, encoder.dim, encoder.spec)


class StoredEmbeddings:
    """The embeddings of one encoder: two files that only grow, and `meta.json`.

    `embeddings.f32` holds rows of float32, `keys.bin` the digest of each row's input. A row counts
    once its key is whole, and keys are written last: a process may be stopped at any moment.
    Processes take turns at writing.

    Args:
        folder: where.
        dim: how many numbers a row has.
        spec: the encoder's name, for people who look into the folder.
    """

    def __init__(self, folder: Path, dim: int, spec: str | None = None) -> None:
        self.folder = folder
        self.dim = dim
        self._rows_file = folder / "embeddings.f32"
        self._keys_file = folder / "keys.bin"
        with self._writing():
            self._check_meta(spec)
            self.num_rows = self._num_whole_rows()
        self._foreign: set[bytes] = set()  # what others have added since

    @property
    def keys(self) -> UInt8[np.ndarray, "n 32"]:
        """The digest of each row's input: a read-only memory map."""
        return _mapped(self._keys_file, np.uint8, (self.num_rows, _KEY_BYTES))

    @property
    def embeddings(self) -> Float[np.ndarray, "n dim"]:
        """Row i belongs to `keys[i]`; a read-only memory map, read from disk where it is used."""
        return _mapped(self._rows_file, np.float32, (self.num_rows, self.dim))

    def find(self, keys: UInt8[np.ndarray, "m 32"]) -> Int64[np.ndarray, " m"]:
        """The row of each key; -1 where there is none."""
        if not self.num_rows or not len(keys):
            return np.full(len(keys), -1)
        # Numbers sort much faster than bytes. Digests that share their first 8 bytes do not occur;
        # if they did, one would be embedded again and again, never mistaken for the other.
        stored = self.keys
        heads = np.ascontiguousarray(stored.view(np.uint64)[:, 0])
        order = np.argsort(heads)
        place = np.searchsorted(heads, keys.view(np.uint64)[:, 0], sorter=order)
        rows = order[np.minimum(place, self.num_rows - 1)]
        return np.where((stored[rows] == keys).all(axis=1), rows, -1)

    def append(
        self, keys: UInt8[np.ndarray, "m 32"], embeddings: Float[np.ndarray, "m dim"]
    ) -> None:
        """Add rows; those that another process has added meanwhile are left out.

        Raises:
            OSError: when the disk is full or cannot be written; nothing is added then.
        """
        with self._writing():
            num_rows = self._num_whole_rows()
            foreign = _mapped(self._keys_file, np.uint8, (num_rows, _KEY_BYTES))[self.num_rows :]
            self._foreign.update(map(bytes, foreign))
            new = [bytes(key) not in self._foreign for key in keys]
            try:
                rows = np.ascontiguousarray(embeddings[new], dtype=np.float32)
                _append(self._rows_file, rows, durably=True)
                _append(self._keys_file, np.ascontiguousarray(keys[new]))
            except BaseException:
                self._cut(num_rows)
                raise
            self.num_rows = num_rows + sum(new)

    def _check_meta(self, spec: str | None) -> None:
        file = self.folder / "meta.json"
        try:
            dim = json.loads(file.read_text(encoding="utf-8"))["dim"]
        except FileNotFoundError:
            dim = None
        except (ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{file} is damaged ({error}); embedding anew.", stacklevel=4)
            dim = None
        if dim is None:
            self._rows_file.write_bytes(b"")
            self._keys_file.write_bytes(b"")
            write_atomically(file, json.dumps({"format": 1, "dim": self.dim, "spec": spec}))
        elif dim != self.dim:
            raise ValueError(
                f"{self.folder} holds embeddings of {dim} numbers, this encoder gives {self.dim}: "
                "two encoders share a fingerprint. Give them different ones."
            )

    def _num_whole_rows(self) -> int:
        """How many rows are whole; what a stopped process left behind them is cut off."""
        self._rows_file.touch()
        self._keys_file.touch()
        row_bytes, key_bytes = self._rows_file.stat().st_size, self._keys_file.stat().st_size
        whole = min(row_bytes // (4 * self.dim), key_bytes // _KEY_BYTES)
        if (row_bytes, key_bytes) != (whole * 4 * self.dim, whole * _KEY_BYTES):
            warnings.warn(
                f"The embedding cache {self.folder} was cut short, as by a killed process: "
                f"{whole} rows are whole and kept.",
                stacklevel=4,
            )
            self._cut(whole)
        return whole

    def _cut(self, num_rows: int) -> None:
        os.truncate(self._rows_file, num_rows * 4 * self.dim)
        os.truncate(self._keys_file, num_rows * _KEY_BYTES)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One process at a time; errors of the disk say how to mend them."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock"):
                yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            raise OSError(
                error.errno,
                f"Cannot write embeddings: {reason}. Free some space or set the environment "
                "variable KSHOT_CACHE to a folder that can be written",
                str(self.folder),
            ) from error


def encode_cached(
    encoder: Encoder,
    inputs: Sequence[Any],
    *,
    cache: EmbeddingCache | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    failures: dict[int, str] | None = None,
) -> Float[np.ndarray, "n dim"]:
    """What `encoder.encode` gives, with each content embedded once and kept.

    Batches are stored as they are done: after an interruption, only the rest is embedded. Pictures
    are found by the bytes of their files, so that a second run decodes nothing.

    Args:
        encoder: what embeds them.
        inputs: pictures, or texts.
        cache: where; by default in kshot's cache folder.
        batch_size: how many the network reads at once; by default the encoder's own.
        progress: told how many of those not in the cache are embedded, of how many; by default a
            bar is shown on a terminal.
        failures: where to note inputs that cannot be embedded, as for `Encoder.encode`.

    Raises:
        ValueError: without `failures`, when an input cannot be embedded; the batches before it,
            and the others of its own batch, are kept.
        OSError: when the cache cannot be written.
    """
    check_list(inputs)
    stored = (cache or EmbeddingCache()).open(encoder)
    places_of: dict[bytes, list[int]] = {}
    unreadable: dict[int, ValueError] = {}
    for place, item in enumerate(inputs):
        try:
            places_of.setdefault(encoder.content(item), []).append(place)
        except ValueError as error:
            unreadable[place] = error
    record_failures(unreadable, failures)

    keys = np.frombuffer(b"".join(places_of), np.uint8).reshape(-1, _KEY_BYTES)
    places = list(places_of.values())
    rows = stored.find(keys)
    embeddings = np.full((len(inputs), encoder.dim), np.nan, dtype=np.float32)
    row_of_input = np.full(len(inputs), -1)
    for row, owners in zip(rows, places, strict=True):
        row_of_input[owners] = row
    known = row_of_input >= 0
    embeddings[known] = stored.embeddings[row_of_input[known]]

    missing = np.flatnonzero(rows < 0)
    todo = [inputs[places[key][0]] for key in missing]
    bar = progress_bar(f"Embedding {encoder.kind}") if todo and progress is None else None
    with bar or nullcontext(progress) as tell:
        done = 0
        for batch in encoder.stream(todo, batch_size=batch_size):
            owners = missing[batch.places]
            stored.append(keys[owners], batch.embeddings)
            for key, embedding in zip(owners, batch.embeddings, strict=True):
                embeddings[places[key]] = embedding
            failed = {
                place: error
                for number, error in batch.failures.items()
                for place in places[missing[number]]
            }
            record_failures(failed, failures)
            done += len(batch.places) + len(batch.failures)
            if tell is not None:
                tell(done, len(todo))
    return embeddings


def _append(file: Path, rows: np.ndarray, durably: bool = False) -> None:
    with file.open("ab") as stream:
        stream.write(rows.data)
        if durably:  # a key that survives a power cut must find its row
            stream.flush()
            os.fsync(stream.fileno())


def _mapped(file: Path, dtype: type, shape: tuple[int, int]) -> np.ndarray:
    if not shape[0]:
        return np.empty(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(file, dtype, mode="r", shape=shape)

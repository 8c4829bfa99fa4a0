"""The embedding cache: each content once, nothing lost, safe between processes."""

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from kshot.data.pictures import PictureError
from kshot.encoders import EmbeddingCache, Encoder, PictureEncoder, cache, encode_cached
from kshot.encoders.encoder import RawBatch


class Letters(Encoder):
    """Embeds a text by its letters and counts what it embeds."""

    kind = "text"
    dim = 3
    fingerprint = "ab" * 32  # pyright: ignore

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def content(self, item: str) -> bytes:
        if not item:
            raise ValueError("The text is empty.")
        return item.encode().ljust(32, b".")[-32:]

    def embed_batches(self, inputs: Sequence[str], batch_size: int) -> Iterator[RawBatch]:
        for start in reversed(range(0, len(inputs), batch_size)):
            places = list(range(start, min(start + batch_size, len(inputs))))
            bad = {n: ValueError(f"{inputs[n]} is bad") for n in places if "bad" in inputs[n]}
            good = [n for n in places if n not in bad]
            self.embedded += [inputs[n] for n in good]
            rows = [[len(inputs[n]), ord(inputs[n][0]), ord(inputs[n][-1])] for n in good]
            yield good, torch.tensor(rows) if rows else None, bad


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


def sizes(store: EmbeddingCache) -> dict[str, int]:
    [folder] = store.folder.iterdir()
    return {file.name: file.stat().st_size for file in folder.iterdir()}


def test_each_content_is_embedded_once(store: EmbeddingCache):
    encoder = Letters()
    words = ["one", "two", "one", "three", "two", "one"]
    first = encode_cached(encoder, words, cache=store, batch_size=2)
    assert np.array_equal(first, Letters().encode(words))
    assert sorted(encoder.embedded) == ["one", "three", "two"]
    second = encode_cached(encoder, ["four", *words], cache=store)
    assert np.array_equal(second[1:], first)
    assert encoder.embedded[3:] == ["four"]
    files = sizes(store)
    assert (files["embeddings.f32"], files["keys.bin"]) == (4 * 12, 4 * 32)
    assert encode_cached(encoder, [], cache=store).shape == (0, 3)


def test_another_encoder_has_embeddings_of_its_own(store: EmbeddingCache):
    class Others(Letters):
        fingerprint = "cd" * 32  # pyright: ignore

    encode_cached(Letters(), ["one"], cache=store)
    other = Others()
    encode_cached(other, ["one"], cache=store)
    assert other.embedded == ["one"] and len(list(store.folder.iterdir())) == 2


def test_the_default_folder_is_in_the_cache_of_kshot(tmp_path, monkeypatch):
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path))
    encode_cached(Letters(), ["one"])
    meta = json.loads((tmp_path / "embeddings" / Letters.fingerprint / "meta.json").read_text())
    assert meta["dim"] == 3


def test_what_is_stored_is_searched_without_loading_it(store: EmbeddingCache):
    words = [f"word {n}" for n in range(1000)]
    embeddings = encode_cached(Letters(), words, cache=store)
    stored = store.open(Letters())
    assert isinstance(stored.embeddings, np.memmap) and not stored.embeddings.flags.writeable
    keys = np.frombuffer(b"".join(map(Letters().content, [*words, "new"])), np.uint8)
    rows = stored.find(keys.reshape(-1, 32))
    assert rows[-1] == -1
    assert np.array_equal(stored.embeddings[rows[:-1]], embeddings)


def test_digests_with_equal_beginnings_are_told_apart(store: EmbeddingCache):
    stored = store.open(Letters())
    keys = np.zeros((3, 32), np.uint8)
    keys[:, 31] = 0, 1, 2
    stored.append(keys[:1], np.ones((1, 3), np.float32))
    assert stored.find(keys).tolist() == [0, -1, -1]


def test_an_interruption_keeps_what_was_done(store: EmbeddingCache):
    words = [f"word {n}" for n in range(10)]
    encoder = Letters()

    def stop(done: int, total: int) -> None:
        assert total == 10
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_cached(encoder, words, cache=store, batch_size=2, progress=stop)
    assert sizes(store)["keys.bin"] == 6 * 32
    resumed = Letters()
    told: list[tuple[int, int]] = []
    embeddings = encode_cached(
        resumed, words, cache=store, batch_size=2, progress=lambda *done: told.append(done)
    )
    assert sorted(encoder.embedded + resumed.embedded) == words
    assert np.array_equal(embeddings, Letters().encode(words))
    assert told == [(2, 4), (4, 4)]


def test_an_interruption_between_the_two_files_leaves_whole_rows(store, monkeypatch):
    encode_cached(Letters(), ["one"], cache=store)
    append = cache._append

    def stopped(file: Path, rows: np.ndarray, durably: bool = False) -> None:
        append(file, rows[: len(rows) // 2], durably)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_append", stopped)
    with pytest.raises(KeyboardInterrupt):
        encode_cached(Letters(), ["two", "three"], cache=store)
    monkeypatch.undo()
    encoder = Letters()
    encode_cached(encoder, ["one", "two", "three"], cache=store)  # no warning: nothing was damaged
    assert sorted(encoder.embedded) == ["three", "two"]


@pytest.mark.parametrize(
    ("file", "cut", "kept"),
    [("embeddings.f32", 5, 3), ("keys.bin", 40, 2), ("embeddings.f32", -7, 4), ("keys.bin", -9, 4)],
)
def test_a_damaged_tail_is_cut_off(store: EmbeddingCache, file: str, cut: int, kept: int):
    words = ["a", "b", "c", "d"]
    expected = encode_cached(Letters(), words, cache=store, batch_size=4)
    path = store.folder / Letters.fingerprint / file
    if cut > 0:
        os.truncate(path, path.stat().st_size - cut)
    else:
        path.write_bytes(path.read_bytes() + b"?" * -cut)
    encoder = Letters()
    with pytest.warns(UserWarning, match=f"cut short.*{kept} rows are whole"):
        embeddings = encode_cached(encoder, words, cache=store)
    assert np.array_equal(embeddings, expected)
    assert encoder.embedded == words[kept:]


def test_a_damaged_description_starts_anew(store: EmbeddingCache):
    encode_cached(Letters(), ["a"], cache=store)
    (store.folder / Letters.fingerprint / "meta.json").write_text("{")
    encoder = Letters()
    with pytest.warns(UserWarning, match=r"meta\.json is damaged"):
        encode_cached(encoder, ["a"], cache=store)
    assert encoder.embedded == ["a"]


def test_one_fingerprint_for_two_encoders_is_found(store: EmbeddingCache):
    encode_cached(Letters(), ["a"], cache=store)
    other = Letters()
    other.dim = 4
    with pytest.raises(ValueError, match="two encoders share a fingerprint"):
        store.open(other)


def test_failures_are_told_at_every_place_and_not_kept(store: EmbeddingCache):
    words = ["one", "bad", "", "two", "bad"]
    with pytest.raises(ValueError, match=r"Input 2 .*empty"):
        encode_cached(Letters(), words, cache=store)
    failures: dict[int, str] = {}
    embeddings = encode_cached(Letters(), words, cache=store, failures=failures)
    assert failures == {1: "bad is bad", 2: "The text is empty.", 4: "bad is bad"}
    assert np.isfinite(embeddings[[0, 3]]).all() and np.isnan(embeddings[[1, 2, 4]]).all()
    encoder = Letters()
    with pytest.raises(ValueError, match=r"Input 1 .*bad is bad"):
        encode_cached(encoder, ["three", "bad"], cache=store)
    assert len(store.open(encoder).keys) == 3, "the good one of the batch is kept"


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "Read-only")]
)
def test_a_full_disk_is_explained(store, monkeypatch, number: int, reason: str):
    encode_cached(Letters(), ["one"], cache=store)

    def append(file: Path, rows: np.ndarray, durably: bool = False) -> None:
        file.write_bytes(file.read_bytes() + b"half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache, "_append", append)
    with pytest.raises(OSError, match=f"{reason}.*variable KSHOT_CACHE") as error:
        encode_cached(Letters(), ["two"], cache=store)
    assert error.value.errno == number
    assert sizes(store)["embeddings.f32"] == 12


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="to a folder that can be written"):
        encode_cached(Letters(), ["one"], cache=EmbeddingCache(tmp_path / "file"))


def test_pictures_are_not_decoded_twice(store, tmp_path: Path, monkeypatch):
    from PIL import Image

    files = [tmp_path / f"{n}.png" for n in range(3)]
    for n, file in enumerate(files):
        Image.fromarray(np.full((9, 9), 40 * n, np.uint8)).save(file)
    (tmp_path / "copy.png").write_bytes(files[1].read_bytes())
    net = torch.nn.AdaptiveAvgPool2d(1)
    encoder = PictureEncoder(net, size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    inputs = [*files, tmp_path / "copy.png"]
    first = encode_cached(encoder, inputs, cache=store)
    assert sizes(store)["keys.bin"] == 3 * 32

    def decode(*args, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr("kshot.encoders.picture_encoder.prepare_picture", decode)
    assert np.array_equal(encode_cached(encoder, inputs, cache=store), first)
    with pytest.raises(PictureError, match=r"Input 1 .*no picture file"):
        encode_cached(encoder, [files[0], tmp_path / "gone.png"], cache=store)


def write_words(folder: Path, name: str, start: int) -> None:
    """What each of two processes does: it waits after its first batch until both have one."""

    def wait(done: int, total: int) -> None:
        (folder / name).touch()
        while not (folder / "go").exists():
            time.sleep(0.002)

    words = [f"word {n}" for n in range(start, start + 150)]
    store = EmbeddingCache(folder / "cache")
    result = encode_cached(Letters(), words, cache=store, batch_size=5, progress=wait)
    assert (result == Letters().encode(words)).all()


def test_two_processes_write_at_once(tmp_path: Path, store: EmbeddingCache):
    context = multiprocessing.get_context("fork")  # others would import PyTorch for seconds
    both = [
        context.Process(target=write_words, args=(tmp_path, name, start))
        for name, start in (("first", 0), ("second", 100))
    ]
    for process in both:
        process.start()
    deadline = time.monotonic() + 60
    while not all((tmp_path / name).exists() for name in ("first", "second")):
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.01)
    (tmp_path / "go").touch()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    encoder = Letters()
    words = [f"word {n}" for n in range(250)]
    assert np.array_equal(encode_cached(encoder, words, cache=store), Letters().encode(words))
    assert not encoder.embedded, "all are there"
    assert len(store.open(encoder).keys) == 250, "those that both embedded are there once"

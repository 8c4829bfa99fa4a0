"""The cache: built once, whole or absent, safe between processes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kshot.data import cache
from kshot.data.cache import cache_folder, cached_arrays


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "arrays"


class Builder:
    """Builds the same values each time and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, progress) -> dict:
        self.calls += 1
        progress(1, 2)
        examples = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
        return {"examples": examples.transpose(1, 0, 2), "names": ["a", "b"], "groups": None}


def test_what_is_built_comes_back_and_is_built_once(private_cache: Path):
    build = Builder()
    first = cached_arrays("toy", {"size": 28}, build)
    second = cached_arrays("toy", {"size": 28}, build)
    assert build.calls == 1
    expected = build(lambda done, total: None)
    for values in (first, second):
        assert np.array_equal(values["examples"], expected["examples"])
        assert values["examples"].dtype == np.uint8
        assert (values["names"], values["groups"]) == (["a", "b"], None)
    [entry] = private_cache.iterdir()
    assert sorted(file.name for file in entry.iterdir()) == ["examples.npy", "meta.json"]
    assert json.loads(json.loads((entry / "meta.json").read_text())["key"])["size"] == 28


def test_another_key_is_another_entry():
    build = Builder()
    cached_arrays("toy", {"size": 28}, build)
    cached_arrays("toy", {"size": 84}, build)
    cached_arrays("toy", {"size": 84, "files": ["ab"]}, build)
    assert build.calls == 3


def test_writing_into_an_array_does_not_reach_the_cache():
    cached_arrays("toy", {}, Builder())["examples"][:] = 7
    assert cached_arrays("toy", {}, Builder())["examples"].max() == 59


@pytest.mark.parametrize("damage", ["truncate array", "remove array", "truncate meta", "swap key"])
def test_a_damaged_entry_is_rebuilt_with_a_warning(private_cache: Path, damage: str):
    build = Builder()
    cached_arrays("toy", {}, build)
    [entry] = private_cache.iterdir()
    if damage == "truncate array":
        os.truncate(entry / "examples.npy", 150)
    elif damage == "remove array":
        (entry / "examples.npy").unlink()
    elif damage == "truncate meta":
        os.truncate(entry / "meta.json", 20)
    else:
        meta = (entry / "meta.json").read_text()
        (entry / "meta.json").write_text(meta.replace("format", "formal"))
    with pytest.warns(UserWarning, match="is damaged .*; rebuilding it"):
        values = cached_arrays("toy", {}, build)
    assert build.calls == 2
    assert values["examples"].shape == (3, 5, 4)
    assert list(private_cache.iterdir()) == [entry]
    cached_arrays("toy", {}, build)
    assert build.calls == 2


def test_a_failing_build_leaves_nothing(private_cache: Path):
    def build(progress):
        raise RuntimeError("no such picture")

    with pytest.raises(RuntimeError, match="no such picture"):
        cached_arrays("toy", {}, build)
    assert not private_cache.exists()


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "Read-only")]
)
def test_a_full_disk_is_explained_and_leaves_nothing(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
):
    def write(file: Path, array: np.ndarray) -> int:
        file.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache, "_write", write)
    with pytest.raises(
        OSError, match=f"{reason}.*set the environment variable KSHOT_CACHE"
    ) as error:
        cached_arrays("toy", {}, Builder())
    assert error.value.errno == number
    assert not list(private_cache.iterdir())


def test_a_cache_that_cannot_be_made_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="KSHOT_CACHE to a folder that can be written"):
        cached_arrays("toy", {}, Builder())


PROGRAM = """
import os, sys, time
import numpy as np
from pathlib import Path
from kshot.data import cache

ready, go = Path(sys.argv[1]), Path(sys.argv[2])

def build(progress):
    ready.touch()
    while not go.exists():
        time.sleep(0.005)
    return {"examples": np.full((2000, 784), 7, dtype=np.uint8), "process": os.getpid()}

write = cache._write

def killed(file, array):
    file.write_bytes(b"half")
    os.kill(os.getpid(), 9)

if sys.argv[3] == "killed":
    cache._write = killed
values = cache.cached_arrays("toy", {"a": 1}, build)
assert (values["examples"] == 7).all()
print(values["process"])
"""


def start(folder: Path, name: str, go: Path, how: str = "whole") -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", PROGRAM, str(folder / name), str(go), how]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(*files: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.01)


def test_two_processes_build_at_once(tmp_path: Path, private_cache: Path):
    go = tmp_path / "go"
    both = [start(tmp_path, name, go) for name in ("first", "second")]
    wait_for(tmp_path / "first", tmp_path / "second")
    go.touch()  # both are in their build: both write
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1], "both read the entry of the one that finished first"
    assert len(list(private_cache.iterdir())) == 1


def test_what_a_killed_process_leaves_is_cleaned_up(tmp_path: Path, private_cache: Path):
    go = tmp_path / "go"
    go.touch()
    process = start(tmp_path, "ready", go, "killed")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    [left] = private_cache.iterdir()
    assert left.suffix == ".tmp"

    cached_arrays("other", {}, Builder())
    assert left.exists(), "it may belong to a process that is still writing"
    long_ago = time.time() - 2 * cache._STALE_SECONDS
    for path in (*left.iterdir(), left):
        os.utime(path, (long_ago, long_ago))
    cached_arrays("third", {}, Builder())
    assert not left.exists()
    assert len(list(private_cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/kshot"),
        ("linux", {}, "/home/me/.cache/kshot"),
        ("darwin", {}, "/home/me/Library/Caches/kshot"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/kshot"),
        ("linux", {"KSHOT_CACHE": "/elsewhere"}, "/elsewhere"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, platform, variables, expected):
    for name in ("KSHOT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache.sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert cache_folder() == Path(expected)


def test_nothing_is_shown_unless_to_a_terminal(capsys: pytest.CaptureFixture):
    with cache.progress_bar("Preparing") as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with cache.progress_bar("Preparing toys") as progress:
        progress(1, 2)
    assert "Preparing toys" in capsys.readouterr().err

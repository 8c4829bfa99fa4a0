"""Folders and zip archives are read in the same way."""

import os
import zipfile
from pathlib import Path

import pytest

from kshot.data.files import FileTree, find_data, open_files

FILES = {
    "cats/1.png": b"one",
    "cats/2.png": b"two",
    "dogs/1.png": b"three",
    "dogs/Thumbs.db": b"",
    ".hidden/1.png": b"",
    "__MACOSX/cats/._1.png": b"",
    "cats/.DS_Store": b"",
}


@pytest.fixture(params=["folder", "zip"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        for name, content in FILES.items():
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).write_bytes(content)
        (tmp_path / "data" / "empty").mkdir()
        return tmp_path / "data"
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
        archive.mkdir("empty")
    return tmp_path / "data.zip"


def test_visible_files_and_folders_are_listed(path: Path):
    with open_files(path) as files:
        assert files.names == ("cats/1.png", "cats/2.png", "dogs/1.png")
        assert files.folders == ("cats", "dogs", "empty")
        assert files.read("dogs/1.png") == b"three"


def test_the_digest_follows_the_content(tmp_path: Path):
    def digest(name: str, content: bytes) -> str:
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_bytes(content)
        value = FileTree(tmp_path / "d").digest()
        (tmp_path / "d" / name).unlink()
        return value

    assert digest("a", b"x") == digest("a", b"x")
    empty_folder = tmp_path / "d" / "empty"
    digests = [digest("a", b"x"), digest("a", b"y"), digest("b", b"x"), digest(".b", b"x")]
    empty_folder.mkdir()
    assert len({*digests, digest("a", b"x")}) == 5


def test_linked_folders_are_followed_once(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.png").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cats").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert FileTree(tmp_path / "data").names == ("cats/1.png",)


def test_nothing_at_the_path(tmp_path: Path):
    with (
        pytest.raises(FileNotFoundError, match="no folder and no zip archive at"),
        open_files(tmp_path / "x"),
    ):
        pass


@pytest.mark.parametrize(("folder", "told"), [("", r"\.$"), ("gone", "gone, which is no folder")])
def test_where_else_a_missing_path_was_sought_is_told(tmp_path, monkeypatch, folder, told):
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path / folder))
    with (
        pytest.raises(FileNotFoundError, match=f"nor in the folder that KSHOT_DATA .*{told}"),
        open_files(Path("no/such/folder")),
    ):
        pass


def test_a_folder_that_cannot_be_read_is_not_left_out_in_silence(tmp_path, monkeypatch):
    (tmp_path / "cats").mkdir()
    scandir = os.scandir

    def refuse(place: str):
        if Path(place).name == "cats":
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="cats"):
        _ = FileTree(tmp_path).names


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes | None):
    damaged = tmp_path / "data.zip"
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("cats/1.png", b"x" * 1000)
    damaged.write_bytes(damaged.read_bytes()[:500] if content is None else content)
    with pytest.raises(ValueError, match="not a zip archive, or a damaged one"):
        _ = FileTree(damaged).names


def test_a_damaged_member_is_an_error_of_its_own(tmp_path: Path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cats/1.png", b"x" * 1000)
    path.write_bytes(path.read_bytes().replace(b"x" * 1000, b"y" * 1000))
    with open_files(path) as files, pytest.raises(OSError, match=r"cats/1\.png cannot be un"):
        files.read("cats/1.png")


def test_shared_data_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "toys").mkdir()
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path))
    assert find_data(Path("toys")) == tmp_path / "toys"
    assert find_data(Path("nothing")) == Path("nothing")
    assert find_data(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert find_data(Path("toys")) == Path("toys")

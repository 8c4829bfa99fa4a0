"""The files of a folder or of a zip archive, read in the same way."""

import hashlib
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath

__all__ = ["FileTree", "find_data", "open_files", "searched"]

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What reading a damaged, encrypted or strangely compressed member raises."""

_LEFT_BY_SYSTEMS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


class FileTree:
    """The visible files of a folder or of a zip archive, by their relative names.

    Hidden files and what operating systems leave behind (`__MACOSX`, `Thumbs.db`) do not count.
    Nothing is listed before it is asked for, and reading is safe from several threads.

    Attributes:
        path: the folder or the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_folder = path.is_dir()
        self._lock = threading.Lock()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the files, with slashes, sorted."""
        return tuple(sorted(filter(_is_visible, self._listing[0])))

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Names of all folders, empty ones too, sorted."""
        parents = {str(up) for name in self.names for up in PurePosixPath(name).parents}
        return tuple(sorted((set(filter(_is_visible, self._listing[1])) | parents) - {"."}))

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: when it cannot be read, or is damaged inside its archive.
        """
        if self._is_folder:
            return (self.path / name).read_bytes()
        try:
            with self._lock:
                return self._archive.read(name)
        except _ZIP_ERRORS as error:
            raise OSError(f"{name} cannot be unpacked: {error}") from error

    def digest(self) -> str:
        """The sha256 of the archive's bytes, or of all visible names and files of the folder."""
        if not self._is_folder:
            with self.path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        total = hashlib.sha256("\n".join(self.folders).encode())
        for name in self.names:
            content = hashlib.sha256(self.read(name)).hexdigest()
            total.update(f"{content} {name}\n".encode())
        return total.hexdigest()

    def close(self) -> None:
        """Close the archive, if it was opened."""
        if "_archive" in self.__dict__:
            self._archive.close()

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(
                f"{self.path} is not a zip archive, or a damaged one ({error}). Download or pack "
                "it again, or give a folder."
            ) from error

    @cached_property
    def _listing(self) -> tuple[list[str], set[str]]:
        """Files and folders, the hidden ones of an archive too."""
        if self._is_folder:
            return _walk(self.path)
        names = self._archive.namelist()
        return (
            [name for name in names if not name.endswith("/")],
            {name.rstrip("/") for name in names if name.endswith("/")},
        )


@contextmanager
def open_files(path: Path) -> Iterator[FileTree]:
    """The files of a folder or of a zip archive, closed again at the end.

    A file that is no zip archive, or a damaged one, raises a ValueError when it is listed.

    Raises:
        FileNotFoundError: when there is nothing at the path.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no folder and no zip archive at {path}{searched(path)}.")
    files = FileTree(path)
    try:
        yield files
    finally:
        files.close()


def find_data(path: Path) -> Path:
    """A path as given when something is there, otherwise within the folder KSHOT_DATA names.

    So a recipe can name data without knowing where a machine keeps it.
    """
    path = path.expanduser()
    shared = os.environ.get("KSHOT_DATA")
    if not path.is_absolute() and not path.exists() and shared:
        within = Path(shared).expanduser() / path
        if within.exists():
            return within
    return path


def searched(path: Path) -> str:
    """The end of a sentence about a missing path: where else `find_data` looked for it."""
    shared = os.environ.get("KSHOT_DATA")
    if not shared or path.is_absolute():
        return ""
    missing = "" if Path(shared).expanduser().is_dir() else ", which is no folder"
    return f", nor in the folder that KSHOT_DATA names: {shared}{missing}"


def _walk(root: Path) -> tuple[list[str], set[str]]:
    """Files and folders below a folder; linked folders are followed, each once."""
    files, folders, seen = [], set(), set()

    def refuse(error: OSError) -> None:  # os.walk would leave the folder out without a word
        raise error

    for place, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if _is_visible(name)]
        relative = Path(place).relative_to(root)
        folders.add(relative.as_posix())
        files.extend((relative / name).as_posix() for name in names)
    return files, folders


def _is_visible(name: str) -> bool:
    return not any(
        part.startswith(".") or part in _LEFT_BY_SYSTEMS for part in name.split("/") if part != "."
    )

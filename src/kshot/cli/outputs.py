"""Where what a command gives is to go: found out before the work, so that nothing is lost."""

from pathlib import Path
from tempfile import TemporaryFile

from matplotlib.figure import Figure

from kshot.evaluation.results import read_results

__all__ = ["check_outputs"]


def check_outputs(
    results: Path | None = None, *figures: Path | None, folder: Path | None = None
) -> None:
    """Find out before the work that what it gives has a place.

    Args:
        results: the JSON file that rows are to be merged into.
        figures: picture files.
        folder: a folder of files; it and those of the other files are made.

    Raises:
        ValueError: when one of them cannot be written, the rows' file holds something else, or no
            picture can be of a file's format.
    """
    if results is not None:
        if results.is_dir():
            raise ValueError(
                f"--results {results} is a folder: name a JSON file in it, such as "
                f"{results / 'evaluation.json'}."
            )
        read_results(results)
        _check_folder(results.parent)
    for figure in figures:
        if figure is not None:
            _check_picture_file(figure)
    if folder is not None:
        _check_folder(folder)


def _check_picture_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder: name a picture file in it, such as {path / 'figure.png'}."
        )
    formats = [f".{name}" for name in Figure().canvas.get_supported_filetypes()]
    # A name without an ending gets that of matplotlib's default format.
    if path.suffix and path.suffix.lower() not in formats:
        raise ValueError(
            f"{path} is of no format that a figure can have: expected one of "
            f"{', '.join(sorted(formats))}, not {path.suffix!r}."
        )
    _check_folder(path.parent)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"Nothing can be written into {folder} ({error.strerror or error}): name another "
            "folder, or make this one writable."
        ) from None

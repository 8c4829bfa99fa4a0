"""Rows of small tables: .csv, .tsv and .jsonl files, as spreadsheets and programs write them."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kshot.data.files import searched
from kshot.options import nearest

__all__ = ["TABLE_SUFFIXES", "read_rows"]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Endings of the files that are tables."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Some columns of each row, without the space around them; "" where there is nothing.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for another kind of file, text that is not UTF-8, a missing column, a row that
            cannot be understood; names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no table at {path}{searched(path)}; expected a file.")
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(
            f"{path} is no table that is read: expected a file that ends in "
            f"{', '.join(TABLE_SUFFIXES)}. Save it as one of these."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not in UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8; in "
            "Excel: 'CSV UTF-8'."
        ) from error
    if suffix == ".jsonl":
        return _json_rows(path, text, columns)
    return _delimited_rows(path, text, columns, _DELIMITERS[suffix])


def _delimited_rows(
    path: Path, text: str, columns: Sequence[str], delimiter: str
) -> Iterator[dict[str, str]]:
    # Not text.splitlines(), which also breaks at characters that sentences may hold.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(path, columns, header)
        places = {column: header.index(column) for column in columns}
        for cells in reader:
            if len(cells) > len(header):
                raise ValueError(
                    f"Line {reader.line_num} of {path} has {len(cells)} columns, but the header "
                    f"has {len(header)}. Put a cell that holds {delimiter!r} in double quotes."
                )
            yield {
                column: cells[place].strip() if place < len(cells) else ""
                for column, place in places.items()
            }
    except csv.Error as error:
        raise ValueError(
            f"Line {reader.line_num} of {path} cannot be read: {error}. A cell that holds a double "
            'quote is written in double quotes, with the one inside doubled: "say ""yes""".'
        ) from error


def _json_rows(path: Path, text: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    checked = False
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"Line {number} of {path} is not valid JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f'Line {number} of {path} must be an object, as {{"text": "..."}}.')
        if not checked:  # later rows may leave a column out
            _check_columns(path, columns, [str(name) for name in row])
            checked = True
        yield {column: _cell(row.get(column), column, number, path) for column in columns}


def _cell(value: Any, column: str, number: int, path: Path) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"Line {number} of {path}: {column!r} must be text or a number, not a "
            f"{type(value).__name__}."
        )
    return str(value).strip()


def _check_columns(path: Path, columns: Sequence[str], header: Sequence[str]) -> None:
    for column in columns:
        if column in header:
            continue
        if not any(header):
            raise ValueError(f"{path} is empty: its first line must name the columns.")
        hint = ""
        if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
            hint = " Cells must be parted by commas in .csv, by tabs in .tsv."
        raise ValueError(
            f"There is no column {column!r} in {path}.{nearest(column, header)}{hint} Name the "
            "columns with --text and --label."
        )

"""A user's own examples, as they lie on disks: folders, archives and tables of every state."""

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kshot.data.sources.own_examples import read_picture_folder, read_table


def draw(path: Path, color: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (color, 0, 0)).save(path)


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    root = tmp_path / "flowers"
    for number, name in enumerate(("rose/1.png", "rose/2.png", "tulip/1.png")):
        draw(root / name, 10 * number)
    return root


def test_class_folders_are_read(flowers: Path):
    examples = read_picture_folder(flowers)
    assert examples.kind == "pictures"
    assert examples.labels == ["rose", "rose", "tulip"]
    assert examples.sources == ["rose/1.png", "rose/2.png", "tulip/1.png"]
    assert examples.inputs == [flowers / source for source in examples.sources]
    assert examples.notes == []


def test_an_archive_gives_the_same_by_content(flowers: Path):
    archive = Path(shutil.make_archive(str(flowers), "zip", flowers))
    folder, packed = read_picture_folder(flowers), read_picture_folder(archive)
    assert packed.inputs == [Path(str(path)).read_bytes() for path in folder.inputs]
    assert packed[2:] == folder[2:]


def test_other_files_are_left_out_and_told(flowers: Path):
    (flowers / "rose" / "notes.txt").touch()
    (flowers / "rose" / ".DS_Store").touch()
    (flowers / "tulip" / "a.json").touch()
    (flowers / "tulip" / "b.json").touch()
    (flowers / "tulip" / "IMG_1.HEIC").touch()
    (flowers / "readme.md").touch()
    examples = read_picture_folder(flowers)
    assert len(examples.labels) == 3
    assert sorted(examples.notes) == [
        "IMG_1.HEIC among the pictures of 'tulip' is in a format that is not read: left out. "
        "Convert to .jpg or .png.",
        "a.json, b.json among the pictures of 'tulip' are not pictures: left out.",
        "notes.txt among the pictures of 'rose' is not a picture: left out.",
        f"readme.md in {flowers} is not a picture: left out.",
    ]


def test_names_of_classes_have_one_form(tmp_path: Path):
    draw(tmp_path / unicodedata.normalize("NFD", "Frühling é") / "1.png")
    draw(tmp_path / "花" / "1.png")
    assert read_picture_folder(tmp_path).labels == ["Frühling é", "花"]


def test_a_folder_may_be_one_class(flowers: Path):
    rose = read_picture_folder(flowers / "rose", one_class=True)
    assert rose.labels == ["rose", "rose"] and rose.sources == ["rose/1.png", "rose/2.png"]
    named = read_picture_folder(flowers / "rose", label="red rose", one_class=True)
    assert named.labels == ["red rose", "red rose"]
    assert read_picture_folder(flowers, one_class=True).labels == ["rose", "rose", "tulip"]
    with pytest.raises(ValueError, match="class folders of one depth"):
        read_picture_folder(flowers / "rose")
    with pytest.raises(ValueError, match=r"has 2 classes \(rose, tulip\), and a label is for"):
        read_picture_folder(flowers, label="flower", one_class=True)


def test_splits_are_read_together(tmp_path: Path):
    draw(tmp_path / "train" / "rose" / "1.png")
    draw(tmp_path / "test" / "tulip" / "1.png")
    examples = read_picture_folder(tmp_path)
    assert examples.labels == ["rose", "tulip"]
    assert examples.notes == ["The folders test, train are read together."]


def test_a_damaged_member_of_an_archive_is_told(flowers: Path, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(flowers / "tulip" / "1.png")
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", flowers))
    content = bytearray(archive.read_bytes())
    middle = content.index(b"tulip/1.png") + 1000
    content[middle : middle + 50] = bytes(50)
    archive.write_bytes(bytes(content))
    examples = read_picture_folder(archive)
    assert examples.labels == ["rose", "rose"]
    assert "tulip/1.png cannot be read" in examples.notes[0]
    assert examples.notes[1] == "No picture of 'tulip' can be read: the class is left out."


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "\ufefftext,label\r\nhello, hi \r\n\r\n,hi\r\nwhat,\r\n \r\n"),
        ("a.tsv", "label\ttext\nhi\thello\n\n\nhi\t\n\twhat\n"),
        (
            "a.jsonl",
            '{"text": "hello", "label": "hi", "id": 3}\n\n{"text": "", "label": null}\n'
            '{"label": "hi"}\n{"text": "what"}\n{}\n',
        ),
    ],
)
def test_tables_are_read_and_empty_rows_told(name: str, content: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content.encode())
    examples = read_table(path)
    assert examples[:4] == ("text", ["hello"], ["hi"], ["hello"])
    assert examples.notes == [
        f"2 rows of {name} without anything are left out.",
        f"1 row of {name} without 'text' is left out.",
        f"1 row of {name} without 'label' is left out.",
    ]


def test_columns_have_names_of_their_own_and_numbers_are_text(tmp_path: Path):
    table = tmp_path / "a.CSV"
    table.write_text('id,question,intent\n1,"a, or b?\nor c",7\n2,"say ""no""\u2028now",8\n')
    examples = read_table(table, text="question", label="intent")
    assert examples.inputs == ["a, or b?\nor c", 'say "no"\u2028now']
    assert examples.labels == ["7", "8"]
    lines = tmp_path / "a.jsonl"
    lines.write_text(json.dumps({"text": "hello", "label": 7}))
    assert read_table(lines).labels == ["7"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"texts,label\na,b\n", "no column 'text' in .* Did you mean 'texts'"),
        ("a.csv", b"text;label\na;b\n", "parted by commas"),
        ("a.csv", b"", "is empty: its first line must name the columns"),
        ("a.csv", b"text,label\n", "no row with a 'text' and a 'label'"),
        ("a.csv", b"text,label\na,b,c\n", "Line 2 .* has 3 columns, .* double quotes"),
        ("a.csv", b'text,label\n"a,b\n', "Line 2 .* cannot be read"),
        ("a.csv", "text,label\nÜ,b\n".encode("latin-1"), "not in UTF-8"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{', "Line 2 .* not valid JSON"),
        ("a.jsonl", b"[1]", "Line 1 .* must be an object"),
        ("a.jsonl", b'{"text": ["a"], "label": "b"}', "'text' must be text or a number"),
        ("a.txt", b"text,label\na,b\n", r"ends in \.csv, \.tsv, \.jsonl"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(name: str, content: bytes, told: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_table(path)


def test_a_missing_table_is_told(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no table at"):
        read_table(tmp_path / "a.csv")

"""A user's own pictures, in every arrangement and state users have them."""

import hashlib
import importlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kshot.config import EpisodeConfig
from kshot.data.pictures import prepare_picture
from kshot.data.sources.image_folder import image_folder


def draw(path: Path, color: tuple[int, int, int] | int, size: tuple[int, int] = (12, 9)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(color, int) else "RGB", size, color).save(path)


def fill(root: Path, num_classes: int = 10, each: int = 3, prefix: str = "") -> Path:
    """Class k holds pictures of the colour (20 k, picture, 0)."""
    for k in range(num_classes):
        for number in range(each):
            draw(root / prefix / f"class{k}" / f"{number}.png", (20 * k, number, 0), (8 + k, 9))
    return root


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


@pytest.mark.parametrize("wrapped", ["", "pictures", "deep/down"])
@pytest.mark.parametrize("packed", [False, True])
def test_class_folders_are_read(tmp_path: Path, wrapped: str, packed: bool):
    root = fill(tmp_path / "data", prefix=wrapped)
    draw(root / "__MACOSX" / "class0" / "._0.png", 0)
    draw(root / wrapped / "class0" / ".hidden.png", 0)
    (root / wrapped / "class1" / "Thumbs.db").touch()
    (root / "readme.txt").touch()
    data = image_folder(path=zipped(root) if packed else root, size=16)
    assert data.protocol == "seed0-0.6-0.16-0.24"
    assert {split: part.num_classes for split, part in data.splits.items()} == {
        "train": 6, "val": 2, "test": 2
    }  # fmt: skip
    names = [name for part in data.splits.values() for name in part.class_names]
    assert sorted(names) == [f"class{k}" for k in range(10)]
    for part in data.splits.values():
        for name, rows in zip(part.class_names, part.rows, strict=True):
            assert len(rows) == 3
            assert (part.examples[rows][:, 0] == 20 * int(name.removeprefix("class"))).all()
    assert data.input_shape == (3, 16, 16)
    episodes = data.sampler("train", EpisodeConfig(query_shot=2), 0).sample([0])
    assert episodes.support.inputs.shape == (1, 5, 3, 16, 16)


def test_a_folder_and_its_archive_give_the_same(tmp_path: Path):
    root = fill(tmp_path / "data")
    folder, archive = image_folder(path=root), image_folder(path=zipped(root))
    for split in ("train", "val", "test"):
        assert folder.splits[split].class_names == archive.splits[split].class_names
        assert np.array_equal(folder.splits[split].examples, archive.splits[split].examples)


def test_groups_are_the_folders_above_classes(tmp_path: Path):
    for group, k in (("latin", 3), ("greek", 4)):
        fill(tmp_path / group, num_classes=k)
    data = image_folder(path=tmp_path, shares=(1.0, 0.0, 0.0))
    train = data.dataset("train")
    assert list(data.splits) == ["train"]
    assert train.class_names[:2] == ("greek/class0", "greek/class1")
    assert train.groups == ("greek",) * 4 + ("latin",) * 3


@pytest.mark.parametrize("wrapped", ["", "pictures"])
@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_split_folders_are_taken(tmp_path: Path, wrapped: str, validation: str):
    for k, split in enumerate(["train", "train", validation, "test"]):
        draw(tmp_path / wrapped / split / f"class{k}" / "0.png", (k, 9, 0))
    data = image_folder(path=tmp_path)
    assert data.protocol == "folders"
    assert {split: part.class_names for split, part in data.splits.items()} == {
        "train": ("class0", "class1"),
        "val": ("class2",),
        "test": ("class3",),
    }


def test_a_class_in_two_split_folders_is_refused(tmp_path: Path):
    for split in ("train", "test"):
        draw(tmp_path / split / "cats" / "0.png", 3)
    with pytest.raises(ValueError, match=r"Class 'cats' .* 'test' and 'train'.*into one folder"):
        image_folder(path=tmp_path)


def test_lists_name_the_classes(tmp_path: Path):
    root = fill(tmp_path / "data")
    lists = tmp_path / "split.json"
    lists.write_text(json.dumps({"train": ["class3", "class1"], "val": [], "test": ["class0"]}))
    data = image_folder(path=root, lists=lists)
    assert data.protocol == "lists-" + hashlib.sha256(lists.read_bytes()).hexdigest()[:8]
    assert data.splits["train"].class_names == ("class3", "class1")
    assert not data.has_split("val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be"),
        ('{"train": "class0"}', "must be"),
        (
            '{"train": ["clas0"]}',
            "'clas0' of split 'train' is not in the data. Did you mean 'class0'",
        ),
        ('{"train": ["class0"], "test": ["class0"]}', "in the splits 'train' and 'test'"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, text: str, message: str):
    root = fill(tmp_path / "data", num_classes=2)
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        image_folder(path=root, lists=tmp_path / "split.json")


def test_seed_and_shares_deal_the_classes(tmp_path: Path):
    root = fill(tmp_path)
    first = image_folder(path=root, split_seed=1, shares=(0.5, 0.0, 0.5))
    assert first.protocol == "seed1-0.5-0-0.5"
    assert list(first.splits) == ["train", "test"]
    again = image_folder(path=root, split_seed=1, shares=(0.5, 0.0, 0.5))
    other = image_folder(path=root, split_seed=2, shares=(0.5, 0.0, 0.5))
    assert first.splits["train"].class_names == again.splits["train"].class_names
    assert first.splits["train"].class_names != other.splits["train"].class_names


def test_too_few_classes_for_a_split_are_said(tmp_path: Path):
    with pytest.warns(UserWarning, match="The 2 classes .* too few for all splits: test has none"):
        data = image_folder(path=fill(tmp_path, num_classes=2))
    assert not data.has_split("test")


def test_channels_follow_the_pictures(tmp_path: Path):
    grey, mixed = tmp_path / "grey", tmp_path / "mixed"
    for k in range(4):
        draw(grey / f"class{k}" / "a.png", 10 * k)
        draw(grey / f"class{k}" / "b.png", (7 * k,) * 3)  # grey, stored as colour
        draw(mixed / f"class{k}" / "a.png", 10 * k)
        draw(mixed / f"class{k}" / "b.png", (7 * k, 1, 200))
    shares = (0.5, 0.25, 0.25)
    assert image_folder(path=grey, shares=shares).input_shape == (1, 84, 84)
    assert image_folder(path=grey, shares=shares, channels=3).input_shape == (3, 84, 84)
    assert image_folder(path=mixed, shares=shares).input_shape == (3, 84, 84)
    draw(mixed / "class0" / "c.png", 5)
    with pytest.warns(UserWarning, match="4 of the 9 pictures .* have colour, so all are read as"):
        assert image_folder(path=mixed, shares=shares).input_shape == (3, 84, 84)
    assert image_folder(path=mixed, shares=shares, channels=1).input_shape == (1, 84, 84)


def test_grey_found_out_and_grey_asked_for_are_the_same(tmp_path: Path):
    rng = np.random.default_rng(0)
    for k in range(4):
        (tmp_path / f"class{k}").mkdir()
        grey = rng.integers(0, 256, (50, 40), dtype=np.uint8)
        Image.fromarray(grey).convert("RGB" if k % 2 else "L").save(
            tmp_path / f"class{k}" / "a.png"
        )
    found, asked = (
        image_folder(path=tmp_path, size=17, shares=(1.0, 0.0, 0.0), channels=channels)
        for channels in ("auto", 1)
    )
    assert np.array_equal(found.dataset("train").examples, asked.dataset("train").examples)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_preparation_prepares_a_new_picture_alike(tmp_path: Path, fit):
    rng = np.random.default_rng(0)
    for k in range(3):
        (tmp_path / f"class{k}").mkdir()
        noise = rng.integers(0, 256, (30, 40 + k, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"class{k}" / "a.png")
    data = image_folder(path=tmp_path, size=20, fit=fit, shares=(1.0, 0.0, 0.0))
    assert json.loads(json.dumps(data.preparation)) == dict(data.preparation)
    train = data.dataset("train")
    for name, rows in zip(train.class_names, train.rows, strict=True):
        again = prepare_picture(tmp_path / name / "a.png", **data.preparation)
        assert np.array_equal(again, train.examples[rows[0]])


def test_pictures_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = fill(tmp_path / "data")
    first = image_folder(path=root)
    module = importlib.import_module("kshot.data.sources.image_folder")
    monkeypatch.setattr(module, "prepare_pictures", None)
    again = image_folder(path=root)
    moved = image_folder(path=root.rename(tmp_path / "elsewhere"))
    for other in (again, moved):
        assert np.array_equal(first.dataset("test").examples, other.dataset("test").examples)
        assert first.dataset("test").class_names == other.dataset("test").class_names


def test_a_changed_picture_is_read_again(tmp_path: Path):
    root = fill(tmp_path, num_classes=3)
    before = image_folder(path=root, shares=(1.0, 0.0, 0.0)).dataset("train").examples
    draw(root / "class0" / "0.png", (200, 100, 50))
    after = image_folder(path=root, shares=(1.0, 0.0, 0.0)).dataset("train").examples
    assert (before != after).any(axis=(1, 2, 3)).tolist() == [True] + [False] * 8


def test_unreadable_pictures_stop_or_are_left_out(tmp_path: Path):
    root = fill(tmp_path)
    (root / "class4" / "1.png").write_bytes(b"broken")
    whole = (root / "class5" / "0.png").read_bytes()
    (root / "class5" / "0.png").write_bytes(whole[: len(whole) - 30])
    message = r"2 of the 30 pictures in .* cannot be read.*class4/1.png.*class5/0.png"
    for _ in range(2):  # from the files, then from the cache
        with pytest.raises(ValueError, match=message + '.*unreadable="skip"'):
            image_folder(path=root)
        with pytest.warns(UserWarning, match=message):
            data = image_folder(path=root, unreadable="skip", shares=(1.0, 0.0, 0.0))
        assert [len(rows) for rows in data.dataset("train").rows] == [3, 3, 3, 3, 2, 2, 3, 3, 3, 3]


def test_a_class_may_not_lose_its_last_picture(tmp_path: Path):
    root = fill(tmp_path, each=1)
    (root / "class4" / "0.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="leaves no picture of class4"):
        image_folder(path=root, unreadable="skip")


def make_empty(root: Path) -> None:
    root.mkdir()


def make_empty_class(root: Path) -> None:
    fill(root, num_classes=2)
    (root / "lonely").mkdir()


def make_class_without_pictures(root: Path) -> None:
    fill(root, num_classes=2)
    (root / "lonely").mkdir()
    (root / "lonely" / "notes.txt").touch()


def make_flat(root: Path) -> None:
    draw(root / "0.png", 1)


def make_mixed_depth(root: Path) -> None:
    fill(root, num_classes=2)
    draw(root / "more" / "class9" / "0.png", 1)


def make_too_deep(root: Path) -> None:
    for a in "xy":
        draw(root / a / "b" / "c" / "0.png", 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_empty, "There is no picture in .*one folder for each class"),
        (make_empty_class, "no picture in these folders of .*: lonely.*add pictures"),
        (make_class_without_pictures, "no picture in these folders of .*: lonely"),
        (make_flat, r"do not all lie in class folders of one depth: 0\.png"),
        (make_mixed_depth, r"of one depth: class0/0\.png, more/class9/0\.png"),
        (make_too_deep, "lie too deep: 'x/b/c/0.png'"),
    ],
)
def test_unclear_folders_are_refused(tmp_path: Path, make, message: str):
    make(tmp_path / "data")
    with pytest.raises(ValueError, match=message):
        image_folder(path=tmp_path / "data")


def test_a_damaged_archive_is_refused(tmp_path: Path):
    archive = zipped(fill(tmp_path / "data"))
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a zip archive, or a damaged one"):
        image_folder(path=archive)


def test_a_damaged_picture_inside_an_archive_is_named(tmp_path: Path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8))
    for k in range(3):
        (tmp_path / "data" / f"class{k}").mkdir(parents=True)
        noise.save(tmp_path / "data" / f"class{k}" / "0.png")
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as packed:  # stored, so that its bytes can be found
        for file in sorted((tmp_path / "data").rglob("*.png")):
            packed.write(file, file.relative_to(tmp_path / "data"))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"1 of the 3 pictures in .*class1/0\.png"):
        image_folder(path=archive)


def test_nothing_at_the_path(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no folder and no zip archive"):
        image_folder(path=tmp_path / "nothing")


def test_caltech_under_its_lists(data_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KSHOT_DATA", str(data_folder))
    data = image_folder(
        path=Path("caltech101/caltech101_84px.zip"), lists=Path("caltech101/split.json"), size=32
    )
    assert {split: part.num_classes for split, part in data.splits.items()} == {
        "train": 60, "val": 16, "test": 24
    }  # fmt: skip
    assert data.protocol == "lists-27a3406f"
    assert data.input_shape == (3, 32, 32)


def test_faces_are_grey(data_folder: Path):
    data = image_folder(path=data_folder / "orl_faces" / "orl_faces.zip", size=32)
    assert data.input_shape == (1, 32, 32)
    assert sum(part.num_classes for part in data.splits.values()) == 40
    assert {len(rows) for part in data.splits.values() for rows in part.rows} == {10}

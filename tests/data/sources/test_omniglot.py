"""Omniglot: the published counts, lists, turns, polarity and filters."""

import hashlib
import importlib
import io
import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kshot.config import EpisodeConfig
from kshot.data.download import DownloadError
from kshot.data.pictures import prepare_picture
from kshot.data.sources.omniglot import OMNIGLOT_PROTOCOLS, omniglot
from kshot.data.splits import LabelledSplits

module = importlib.import_module("kshot.data.sources.omniglot")  # the function hides its module

CLASSES = {
    # characters, times 4 where a quarter turn is a class of its own
    "vinyals": {"train": 4 * 1028, "val": 4 * 172, "test": 4 * 423},
    "maml1100": {"train": 4 * 1100, "val": 4 * 100, "test": 4 * 423},
    "random1200": {"train": 4 * 1200, "test": 423},
    "reptile1200": {"train": 4 * 1200, "test": 423},
    "santoro1200": {"train": 4 * 1200, "test": 4 * 423},
    "lake": {"train": 4 * 964, "test": 4 * 659},
}


@pytest.fixture(scope="module")
def root(data_folder: Path) -> Path:
    return data_folder / "omniglot"


@pytest.fixture(scope="module")
def vinyals(root: Path) -> LabelledSplits:
    return omniglot(root=root)


def upright(data: LabelledSplits, split: str) -> list[str]:
    return [name for name in data.dataset(split).class_names if "@" not in name]


def drawing(root: Path, character: str, number: int = 0) -> bytes:
    """The file of a drawing, found without the code under test."""
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(root / f"{part}.zip") as archive:
            names = sorted(name for name in archive.namelist() if f"/{character}/" in name)
            if names := [name for name in names if name.endswith(".png")]:
                return archive.read(names[number])
    raise LookupError(character)


def check(data: LabelledSplits, protocol: str) -> None:
    assert {s: part.num_classes for s, part in data.splits.items()} == CLASSES[protocol]
    names = [name for part in data.splits.values() for name in part.class_names]
    assert len(set(names)) == len(names)
    characters = [
        {name.split("@")[0] for name in part.class_names} for part in data.splits.values()
    ]
    assert sum(map(len, characters)) == len(set().union(*characters)) == 1623
    for part in data.splits.values():
        assert part.examples is data.dataset("train").examples, "all splits share one array"
        assert {len(rows) for rows in part.rows} == {20}
        assert part.groups is not None
        for name, group in zip(part.class_names, part.groups, strict=True):
            assert name.startswith(f"{group}/character")
    assert data.input_shape == (1, 28, 28)
    assert data.dataset("train").examples.nbytes == 32_460 * 28 * 28


def test_vinyals_has_the_published_classes(vinyals: LabelledSplits, root: Path):
    check(vinyals, "vinyals")
    for split in ("train", "val", "test", "trainval"):
        file = root / "splits" / f"{split}.txt"
        published = file.read_text().split() if file.exists() else []
        assert upright(vinyals, split) == published
    assert vinyals.num_classes("trainval") == 4 * 1200


def test_vinyals_test_characters_are_of_thirteen_alphabets(vinyals: LabelledSplits):
    """Facts counted in the published files; Gurmukhi is in training and test."""
    counts = Counter(name.split("/")[0] for name in upright(vinyals, "test"))
    assert len(counts) == 13
    assert (counts["Gurmukhi"], counts["Malayalam"], counts["ULOG"]) == (4, 47, 26)
    assert counts["Old_Church_Slavonic_(Cyrillic)"] == 45
    training = Counter(name.split("/")[0] for name in upright(vinyals, "train"))
    assert set(training) & set(counts) == {"Gurmukhi"}


def test_vinyals_pictures_are_those_of_the_paper(vinyals: LabelledSplits, root: Path):
    """Turn, resize, one minus pixel, as its authors write it; ink is 1."""
    data = vinyals.dataset("train")
    for character in ("Angelic/character05", "Gurmukhi/character41"):
        image = Image.open(io.BytesIO(drawing(root, character, 7)))
        assert image.mode == "1"
        for turn in (0, 90, 180, 270):
            number = data.class_names.index(f"{character}@{turn}" if turn else character)
            read = data.read(data.rows[number][[7]], np.array([number]))
            expected = 1.0 - np.asarray(image.rotate(float(turn)).resize((28, 28)), np.float32)
            assert torch.equal(read[0, 0], torch.from_numpy(expected))
    assert set(np.unique(data.examples)) == {0, 255}
    assert 0.02 < data.examples.mean() / 255 < 0.15


def test_preparation_prepares_a_new_drawing_alike(vinyals: LabelledSplits, root: Path):
    data = vinyals.dataset("test")
    assert json.loads(json.dumps(vinyals.preparation)) == dict(vinyals.preparation)
    new = prepare_picture(drawing(root, "Tibetan/character10", 3), **vinyals.preparation)
    number = data.class_names.index("Tibetan/character10")
    assert np.array_equal(new, data.examples[data.rows[number][3]])


def test_within_alphabet_episodes(vinyals: LabelledSplits):
    sampler = vinyals.sampler("test", EpisodeConfig(way=20, shot=1, query_shot=5, within=True), 0)
    classes = sampler.indices(range(50)).classes
    groups = np.array(sampler.dataset.groups)[classes]
    assert (groups == groups[:, :1]).all()


def test_maml_shares_the_pictures_of_vinyals(root: Path, vinyals: LabelledSplits):
    data = omniglot(protocol="maml1100", root=root)
    check(data, "maml1100")
    assert np.array_equal(data.dataset("train").examples, vinyals.dataset("train").examples)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["random1200", "reptile1200", "santoro1200", "lake"])
def test_the_other_protocols(root: Path, protocol: str):
    data = omniglot(protocol=protocol, root=root)  # pyright: ignore[reportArgumentType]
    check(data, protocol)
    ink_is_one = OMNIGLOT_PROTOCOLS[protocol].ink_is_one
    assert (data.dataset("train").examples.mean() < 128) == ink_is_one
    number_of_values = len(np.unique(data.dataset("train").examples))
    assert number_of_values == 2 if OMNIGLOT_PROTOCOLS[protocol].bilevel else number_of_values > 50
    image = Image.open(io.BytesIO(drawing(root, "Greek/character03")))
    if protocol == "random1200":
        expected = np.asarray(image.convert("L").resize((28, 28), Image.Resampling.LANCZOS))
    elif protocol == "reptile1200":
        expected = np.asarray(image.resize((28, 28))) * np.uint8(255)
    else:
        expected = 255 - np.asarray(image.convert("L").resize((28, 28), Image.Resampling.BILINEAR))
    split = next(s for s in data.splits if "Greek/character03" in data.dataset(s).class_names)
    number = data.dataset(split).class_names.index("Greek/character03")
    assert np.array_equal(
        data.dataset(split).examples[data.dataset(split).rows[number][0], 0], expected
    )


@pytest.mark.parametrize("protocol", ["maml1100", "random1200", "reptile1200", "santoro1200"])
def test_random_lists_never_change(protocol: str):
    """Should a version of Python shuffle otherwise, numbers would silently not compare."""
    lists = OMNIGLOT_PROTOCOLS[protocol].lists([f"c{i:04d}" for i in range(1623)], frozenset())
    digest = hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]
    assert digest == PINNED_LISTS[protocol]


PINNED_LISTS = {
    "maml1100": "91bc2e87956b908d",
    "random1200": "565f8402e9fa1ac4",
    "reptile1200": "2d59df16a7b68f2d",
    "santoro1200": "565f8402e9fa1ac4",
}


def test_random_protocols_of_one_seed_have_the_same_test_characters():
    names = [f"c{i:04d}" for i in range(1623)]
    maml, relation, mann = (
        OMNIGLOT_PROTOCOLS[protocol].lists(names, frozenset())
        for protocol in ("maml1100", "random1200", "santoro1200")
    )
    assert maml["test"] == relation["test"]
    assert maml["train"] + maml["val"] == relation["train"]
    assert mann == relation


# Without the real data: a tiny Omniglot of the same layout.


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four background and two evaluation characters of 20 drawings."""
    monkeypatch.setattr(
        module,
        "_PARTS",
        {"images_background": ("0" * 32, 4), "images_evaluation": ("0" * 32, 2)},
    )
    rng = np.random.default_rng(0)
    for part, characters in (("images_background", "ab"), ("images_evaluation", "c")):
        for alphabet in characters:
            for character in (1, 2):
                folder = tmp_path / part / alphabet / f"character{character:02d}"
                folder.mkdir(parents=True)
                for drawer in range(20):
                    ink = rng.integers(0, 10, (105, 105)) > 0
                    Image.fromarray(ink).save(folder / f"0001_{drawer:02d}.png")
        shutil.make_archive(str(tmp_path / part), "zip", tmp_path, part)
    return tmp_path


@pytest.mark.parametrize("packed", [True, False])
def test_archives_may_be_packed_or_not(tiny: Path, packed: bool):
    for part in ("images_background", "images_evaluation"):
        if packed:
            shutil.rmtree(tiny / part)
        else:
            (tiny / f"{part}.zip").unlink()
    data = omniglot(protocol="lake", root=tiny)
    assert upright(data, "train") == [
        "a/character01",
        "a/character02",
        "b/character01",
        "b/character02",
    ]
    assert upright(data, "test") == ["c/character01", "c/character02"]
    assert data.num_classes("test") == 8


def test_the_shared_data_folder_is_used(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    (tiny / "shared").mkdir()
    for part in tiny.glob("*.zip"):
        part.rename(tiny / "shared" / part.name)
    (tiny / "shared").rename(tiny / "omniglot")
    monkeypatch.setenv("KSHOT_DATA", str(tiny))
    assert omniglot(protocol="lake").num_classes("train") == 16


def test_it_is_downloaded_when_it_is_nowhere(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fetched = []

    def download(name: str, file: str, mirrors: list[str], **options: object) -> Path:
        fetched.append((file, options["md5"]))
        assert all(mirror.endswith(f"python/{file}") for mirror in mirrors)
        return tiny / file

    monkeypatch.setattr(module, "download", download)
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path / "nowhere"))
    assert omniglot(protocol="lake").num_classes("train") == 16
    assert fetched == [("images_background.zip", "0" * 32), ("images_evaluation.zip", "0" * 32)]


def test_a_failed_download_says_what_else_can_be_done(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "_MIRRORS", ("http://127.0.0.1:9/",))
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path))
    monkeypatch.delenv("KSHOT_DATA", raising=False)
    with pytest.raises(
        DownloadError, match=r"images_background\.zip of omniglot(?s:.)*option root"
    ):
        omniglot()


def test_a_root_without_the_archives_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no images_background\.zip in"):
        omniglot(root=tmp_path)


def test_a_damaged_archive_is_refused(tiny: Path):
    archive = tiny / "images_background.zip"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match="not a zip archive, or a damaged one"):
        omniglot(protocol="lake", root=tiny)


def test_an_incomplete_archive_is_refused(tiny: Path):
    shutil.rmtree(tiny / "images_evaluation" / "c" / "character02")
    (tiny / "images_evaluation.zip").unlink()
    with pytest.raises(ValueError, match=r"must hold 2 characters .* and has 1 with 20 drawings"):
        omniglot(protocol="lake", root=tiny)


def test_a_damaged_drawing_is_named(tiny: Path):
    (tiny / "images_evaluation" / "c" / "character02" / "0001_00.png").write_bytes(b"broken")
    (tiny / "images_evaluation.zip").unlink()
    with pytest.raises(ValueError, match=r"1 drawings cannot be read.*c/character02/0001_00\.png"):
        omniglot(protocol="lake", root=tiny)


def test_an_unknown_protocol_is_refused(tiny: Path):
    with pytest.raises(Exception, match="protocol"):
        omniglot(protocol="vinyal", root=tiny)  # pyright: ignore[reportArgumentType]

"""What a user is told: `pytest tests/test_bad_input.py -s` prints every message."""

import errno
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import kshot
from kshot.backbones.heads import Flatten
from kshot.cli import main
from kshot.config import EpisodeConfig, TrainingConfig
from kshot.data import atomic
from kshot.data import cache as cache_module
from kshot.data import download as download_module
from kshot.data.cache import cached_arrays
from kshot.data.download import download
from kshot.episodes import Episodes, Examples, one_hot
from kshot.losses import check_examples
from kshot.recipe import load_recipe, parse_run
from kshot.training import checkpoint as checkpoint_module
from kshot.training.checkpoint import CheckpointFolder, save_checkpoint
from kshot.training.run import build_run, create_folder, load_run, train_run


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Four classes of three small grey pictures."""
    random = np.random.default_rng(0)
    for name in ("bird", "cat", "dog", "eel"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(3):
            array = random.integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def trained(pictures, tmp_path) -> Path:
    """The folder of a run on these pictures."""
    folder = tmp_path / "run"
    shares = {"path": str(pictures), "size": 16, "shares": (0.5, 0.0, 0.5)}
    config = parse_run(
        {
            "data": {"name": "image_folder", **shares},
            "backbone": {"name": "conv4", "hidden": 4},
            "episodes": {"way": 2, "query_shot": 2},
            "validation": {"way": 2, "query_shot": 2},
            "training": {"iterations": 4, "checkpoint_every": 2, "device": "cpu"},
            "evaluation": {"ways": [2], "query_shots": [2], "episodes": 2},
        }
    )
    run = build_run(config)
    create_folder(folder, run, "a test", None)
    train_run(run, folder, quiet=True)
    return folder


def message(expected: type[BaseException], action) -> str:
    with pytest.raises(expected) as caught:
        action()
    text = str(caught.value)
    print(f"\n  {text}")
    return text


def cli_message(capsys, *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) != 0
    text = capsys.readouterr().err
    print(f"\n  {text.strip()}")
    return text


def draw(folder: Path, **options):
    episode = EpisodeConfig(**{"way": 2, "shot": 1, "query_shot": 2, **options})
    data = kshot.image_folder(path=folder, size=16, shares=(1.0, 0.0, 0.0))
    return data.sampler("train", episode, seed=0)


def test_a_class_with_too_few_pictures(pictures):
    (pictures / "cat" / "0.png").unlink()
    text = message(ValueError, lambda: draw(pictures))
    assert "'cat' has 2 examples" in text and "needs 3" in text


def test_a_way_larger_than_the_classes(pictures):
    text = message(ValueError, lambda: draw(pictures, way=5))
    assert "needs 5 classes" in text and "has 4" in text


@pytest.mark.parametrize("content", [b"no picture at all", None])
def test_an_unreadable_or_truncated_picture(pictures, content):
    path = pictures / "dog" / "1.png"
    path.write_bytes(content or path.read_bytes()[:60])
    text = message(ValueError, lambda: draw(pictures))
    assert "dog/1.png" in text and 'unreadable="skip"' in text
    with pytest.warns(UserWarning, match="1 of the 12 pictures"):
        data = kshot.image_folder(path=pictures, size=16, shares=(1.0, 0.0, 0.0), unreadable="skip")
    assert sum(map(len, data.dataset("train").rows)) == 11


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    text = message(ValueError, lambda: draw(tmp_path / "empty"))
    assert "empty" in text


def test_mixed_grey_and_colour(pictures):
    colour = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(colour).save(pictures / "bird" / "0.png")
    with pytest.warns(UserWarning, match="1 of the 12 pictures .* have colour") as caught:
        data = kshot.image_folder(path=pictures, size=16, shares=(1.0, 0.0, 0.0))
    print(f"\n  {caught[0].message}")
    assert data.input_shape == (3, 16, 16)


def test_a_support_folder_with_one_class(trained, tmp_path, pictures, capsys):
    support = tmp_path / "support"
    (support / "only").mkdir(parents=True)
    picture = pictures / "cat" / "0.png"
    (support / "only" / "0.png").write_bytes(picture.read_bytes())
    text = cli_message(capsys, "predict", trained, "--support", support, "--query", picture)
    assert "one class, 'only'" in text


def test_a_query_that_is_no_picture(trained, tmp_path, pictures, capsys):
    query = tmp_path / "notes.txt"
    query.write_text("milk, bread")
    text = cli_message(capsys, "predict", trained, "--support", pictures, "--query", query)
    assert "notes.txt cannot be read" in text
    text = cli_message(capsys, "predict", trained, "--support", pictures, "--query", "gone.png")
    assert "gone.png" in text


def test_a_damaged_zip(pictures, tmp_path):
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in pictures.rglob("*.png"):
            file.write(path, path.relative_to(pictures))
    archive.write_bytes(archive.read_bytes()[:-100])
    assert "damaged" in message(ValueError, lambda: draw(archive))


def test_a_checksum_that_differs(tmp_path):
    source = tmp_path / "source" / "a.bin"
    source.parent.mkdir()
    source.write_bytes(b"not what was published")
    text = message(
        download_module.DownloadError,
        lambda: download(
            "a", "a.bin", [f"{source.parent.as_uri()}/a.bin"], folder=tmp_path, sha256="0" * 64
        ),
    )
    assert "0" * 64 in text


def test_no_disk_space_for_the_cache(monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module, "_write", full)
    text = message(
        OSError, lambda: cached_arrays("a", {"a": 1}, lambda progress: {"x": np.zeros(3)})
    )
    assert "space" in text.lower()


def test_no_disk_space_for_a_checkpoint(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    text = message(
        checkpoint_module.CheckpointError,
        lambda: save_checkpoint(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {}),
    )
    assert "No space left" in text


def test_a_run_folder_that_exists(trained):
    run = load_run(trained)
    text = message(FileExistsError, lambda: create_folder(trained, run, "", None))
    assert "--resume" in text


def test_a_truncated_checkpoint(trained):
    latest = CheckpointFolder(trained / "checkpoints").steps()[-1]
    latest.write_bytes(latest.read_bytes()[:200])
    with pytest.warns(UserWarning, match="Falling back") as caught:
        run = load_run(trained)
    print(f"\n  {caught[0].message}")
    assert run.training.iteration == 2


@pytest.mark.parametrize("change", ["learner", "format"])
def test_a_checkpoint_of_another_learner_or_a_newer_format(trained, change, monkeypatch):
    for path in CheckpointFolder(trained / "checkpoints").steps():
        loaded = checkpoint_module.load_checkpoint(path)
        with monkeypatch.context() as patch:
            if change == "format":
                patch.setattr(checkpoint_module, "FORMAT", 99)
            state = {**loaded.state, "learner": "snail"} if change == "learner" else loaded.state
            save_checkpoint(path, loaded.tensors, state)
    text = message(checkpoint_module.CheckpointError, lambda: load_run(trained))
    assert "'snail'" in text if change == "learner" else "newer kshot" in text


def test_an_unknown_learner(capsys):
    assert "Did you mean 'protonet'?" in cli_message(capsys, "train", "protonett")


def test_an_unknown_recipe_key(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[training]\niteratoins = 3\n")
    assert "'iterations'" in message(ValueError, lambda: load_recipe(recipe))
    recipe.write_text("[trainig]\niterations = 3\n")
    assert "'training'" in message(ValueError, lambda: load_recipe(recipe))
    recipe.write_text('[training]\niterations = "many"\n')
    assert "must be int, not 'many'" in message(ValueError, lambda: load_recipe(recipe))
    recipe.write_text("[training\n")
    assert "not valid TOML" in message(ValueError, lambda: load_recipe(recipe))


def test_target_rows_that_are_no_probabilities():
    examples = Examples(torch.zeros(1, 2, 3), torch.tensor([[[0.5, 0.5], [1.0, 1.0]]]))
    text = message(ValueError, lambda: check_examples(examples, "classification", "support"))
    assert "[1.0, 1.0]" in text and "one_hot" in text


class Fixed:
    """A sampler that always gives the same episodes."""

    def __init__(self, inputs):
        examples = Examples(inputs, one_hot(torch.arange(4).view(1, 4) % 2, 2))
        self.episodes = Episodes(examples, examples)

    def sample(self, episodes):
        return self.episodes


def test_nan_in_inputs():
    inputs = torch.zeros(1, 4, 3)
    inputs[0, 1] = float("nan")
    learner = kshot.ProtoNet(nn.Linear(3, 2))
    config = TrainingConfig(iterations=1, device="cpu")
    text = message(ValueError, lambda: kshot.meta_train(learner, Fixed(inputs), config))
    assert "support inputs hold NaN" in text
    assert "NaN" in message(
        ValueError, lambda: kshot.FewShotClassifier().fit(inputs[0].numpy(), [0, 1, 0, 1])
    )


def test_a_network_whose_output_has_the_wrong_shape(unchecked_shapes):
    episodes = Fixed(torch.zeros(1, 4, 1, 8, 8)).episodes
    encoder = nn.Conv2d(1, 4, 3)
    text = message(ValueError, lambda: kshot.ProtoNet(encoder)(episodes))
    assert "(8, 4, 6, 6)" in text and "flatten" in text
    net = nn.Sequential(Flatten((1, 8, 8)), nn.Linear(64, 1))
    text = message(ValueError, lambda: kshot.MAML(net)(episodes))
    assert "(4, 1)" in text and "2 classes" in text


def test_run_json_that_is_no_run(tmp_path):
    text = message(checkpoint_module.CheckpointError, lambda: load_run(tmp_path))
    assert "no run.json" in text


def test_a_recipe_keeps_its_meaning_through_json():
    config = parse_run({"training": {"iterations": 7}, "evaluation": {"ways": [5, 20]}})
    assert parse_run(json.loads(json.dumps(config.as_dict()))) == config

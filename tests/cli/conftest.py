"""A folder of pictures, and a run trained on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of 18 classes of 7 small noisy pictures, in train/, val/ and test/."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in range(6):
            center = random.integers(0, 256, (16, 16))
            folder = root / split / f"{split}{name}"
            folder.mkdir(parents=True)
            for number in range(7):
                noisy = (center + random.normal(0, 20, (16, 16))).clip(0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def flags(pictures) -> list[str]:
    """Flags of a training that takes a second or two."""
    return [
        *("--data", "image_folder", "--data.path", str(pictures), "--data.size", "16"),
        *("--backbone.hidden", "4", "--training.iterations", "6", "--training.device", "cpu"),
        *("--training.validate-every", "3", "--training.validation-episodes", "4"),
        *("--training.checkpoint-every", "2", "--validation.query-shot", "3"),
        *("--episodes.way", "4", "--episodes.query-shot", "3"),
        *("--evaluation.ways", "4", "--evaluation.shots", "1", "2"),
        *("--evaluation.query-shots", "3", "--evaluation.episodes", "8"),
    ]


@pytest.fixture(scope="session")
def run_folder(flags, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    from kshot.cli import main

    folder = tmp_path_factory.mktemp("runs") / "protonet"
    assert main(["train", "protonet", *flags, "--out", str(folder)]) == 0
    return folder

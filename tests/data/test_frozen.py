"""Frozen episodes: what was saved comes back, for the data it was drawn from and no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.frozen import fingerprint, load_episodes, save_episodes
from kshot.data.sampler import EpisodeSampler
from kshot.episodes import map_tensors


@pytest.fixture
def data() -> LabelledDataset:
    rng = np.random.default_rng(0)
    examples = rng.integers(0, 256, (60, 1, 5, 5), dtype=np.uint8)
    return LabelledDataset.from_labels(examples, np.arange(60) % 6).with_rotations()


@pytest.fixture
def sampler(data: LabelledDataset) -> EpisodeSampler:
    return EpisodeSampler(data, EpisodeConfig(way=(2, 4), shot=(1, 3), query_shot=2), split="test")


def test_saved_episodes_are_those_that_were_drawn(tmp_path: Path, data, sampler):
    save_episodes(tmp_path / "test.safetensors", sampler.indices(range(20)), data)
    frozen = load_episodes(tmp_path / "test.safetensors", data)
    assert len(frozen) == 20
    map_tensors(
        lambda first, second: torch.testing.assert_close(first, second, rtol=0, atol=0),
        frozen.sample([3, 19, 0]),
        sampler.sample([3, 19, 0]),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["test.safetensors"]


@pytest.mark.parametrize("asked", [[20], [-1], [0, 25]])
def test_episodes_beyond_the_last_are_refused(tmp_path: Path, data, sampler, asked):
    save_episodes(tmp_path / "e", sampler.indices(range(20)), data)
    with pytest.raises(IndexError, match="20 frozen episodes, 0 to 19"):
        load_episodes(tmp_path / "e", data).sample(asked)


def other_data(data: LabelledDataset) -> dict[str, LabelledDataset]:
    brighter = data.examples.copy()
    brighter[7, 0, 0, 0] ^= 1
    return {
        "one pixel": replace(data, examples=brighter),
        "fewer classes": data.select(range(10)),
        "other order": data.select(range(data.num_classes)[::-1]),
        "not turned": replace(data, quarter_turns=0 * data.quarter_turns),
        "other names": replace(data, class_names=data.class_names[::-1]),
        "other rows": replace(data, rows=data.rows[::-1]),
    }


@pytest.mark.parametrize(
    "change",
    ["one pixel", "fewer classes", "other order", "not turned", "other names", "other rows"],
)
def test_other_data_is_refused(tmp_path: Path, data, sampler, change):
    save_episodes(str(tmp_path / "e"), sampler.indices(range(5)), data)
    with pytest.raises(ValueError, match="drawn from other data"):
        load_episodes(str(tmp_path / "e"), other_data(data)[change])


def test_the_fingerprint_depends_on_content_alone(data):
    copy = replace(data, examples=np.array(data.examples, order="F"))
    assert fingerprint(copy) == fingerprint(data)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, data, sampler, size):
    path = tmp_path / "e"
    save_episodes(path, sampler.indices(range(5)), data)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="damaged one"):
        load_episodes(path, data)


def test_a_file_of_another_kind_is_refused(tmp_path: Path, data):
    save_file({"weights": np.zeros(3)}, tmp_path / "e")
    with pytest.raises(ValueError, match="not a file of episodes"):
        load_episodes(tmp_path / "e", data)


def test_a_missing_file_is_named(tmp_path: Path, data):
    with pytest.raises(FileNotFoundError, match="no file of episodes at"):
        load_episodes(tmp_path / "nothing", data)

"""Augmentation: each picture is moved on its own, by what its place in the episode says."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.config import AugmentationConfig, EpisodeConfig
from kshot.data.augment import AugmentedSampler, move_pictures
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler, TaskStream
from kshot.data.sources.sinusoid import sinusoid
from kshot.episodes import Examples


@pytest.fixture
def plain() -> EpisodeSampler:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 2, (40, 1, 12, 12), dtype=np.uint8) * 255
    data = LabelledDataset.from_labels(pictures, np.repeat(np.arange(5), 8))
    return EpisodeSampler(data, EpisodeConfig(way=3, shot=2, query_shot=2))


def inputs(sampler: AugmentedSampler | EpisodeSampler, episodes: list[int]) -> Tensor:
    drawn = sampler.sample(episodes)
    assert isinstance(drawn.support.inputs, Tensor) and isinstance(drawn.query.inputs, Tensor)
    return torch.cat([drawn.support.inputs, drawn.query.inputs], 1)


def test_a_map_turns_and_shifts_a_picture():
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    turned = move_pictures(picture, quarter, smooth=False)
    assert torch.equal(turned, picture.rot90(1, (2, 3))) or torch.equal(
        turned, picture.rot90(-1, (2, 3))
    )
    one_left = torch.tensor([[[1.0, 0.0, 2 / 4], [0.0, 1.0, 0.0]]])
    shifted = move_pictures(picture, one_left, smooth=True)
    torch.testing.assert_close(shifted[..., :3], picture[..., 1:])
    torch.testing.assert_close(shifted[..., 3], picture[..., 3])  # the border is repeated


def test_pictures_move_each_in_its_own_way_and_targets_stay(plain: EpisodeSampler):
    moved = AugmentedSampler(plain, AugmentationConfig(rotation=20.0, shift=2.0, smooth=False))
    before, after = plain.sample([0, 1]), moved.sample([0, 1])
    assert torch.equal(before.query.targets, after.query.targets)
    changed = (inputs(plain, [0, 1]) != inputs(moved, [0, 1])).flatten(2).any(2)
    assert changed.float().mean() > 0.9
    assert set(inputs(moved, [0]).unique().tolist()) == {0.0, 1.0}, "black and white stays so"


def test_a_map_depends_on_seed_split_and_index_alone(plain: EpisodeSampler):
    config = AugmentationConfig(rotation=20.0, shear=0.2, scale=0.2, shift=2.0)
    one, other = (AugmentedSampler(plain, config, seed=seed) for seed in (0, 1))
    together, alone = inputs(one, [3, 4, 5]), inputs(one, [4])
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(alone, inputs(other, [4]))


def test_nothing_moves_within_limits_of_zero(plain: EpisodeSampler):
    still = AugmentedSampler(plain, AugmentationConfig())
    torch.testing.assert_close(inputs(still, [0]), inputs(plain, [0]), atol=1e-5, rtol=0)
    assert not AugmentationConfig().moves and AugmentationConfig(shear=0.1).moves


def test_shifts_are_pixels(plain: EpisodeSampler):
    """Moved by at most half a pixel, the nearest pixel is the pixel itself."""
    still = AugmentedSampler(plain, AugmentationConfig(shift=0.49, smooth=False))
    assert torch.equal(inputs(still, [0, 1]), inputs(plain, [0, 1]))
    moved = AugmentedSampler(plain, AugmentationConfig(shift=1.2, smooth=False))
    assert not torch.equal(inputs(moved, [0, 1]), inputs(plain, [0, 1]))


def test_what_is_no_picture_is_refused():
    waves = sinusoid().sampler("train", EpisodeConfig(1, 5, 5), 0)
    with pytest.raises(ValueError, match="Only pictures"):
        AugmentedSampler(waves, AugmentationConfig(shift=1.0)).sample([0])


@pytest.mark.parametrize("wrong", [{"shift": -1.0}, {"scale": 1.0}])
def test_impossible_limits_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="at least 0"):
        AugmentationConfig(**wrong)
    assert math.isclose(AugmentationConfig(scale=0.5).scale, 0.5)


def test_a_class_is_moved_alike_in_support_and_query(plain: EpisodeSampler):
    """With one example in each set that is the same picture, both come out the same."""
    config = AugmentationConfig(class_rotation=90.0, class_shear=0.3, class_scale=0.3)
    moved = AugmentedSampler(plain, config)
    drawn = plain.sample([0])
    same = Examples(drawn.support.inputs, drawn.support.targets)
    stream = TaskStream(0, "", np.array([0]))
    one, other = (moved._augment(same, stream, part) for part in ("support", "query"))
    assert isinstance(one.inputs, Tensor) and isinstance(other.inputs, Tensor)
    assert torch.equal(one.inputs, other.inputs)
    assert isinstance(same.inputs, Tensor) and not torch.allclose(one.inputs, same.inputs)


def test_a_mirrored_class_is_mirrored_in_support_and_query(plain: EpisodeSampler):
    mirrored = AugmentedSampler(plain, AugmentationConfig(mirror=True, smooth=False))
    before, after = plain.sample(range(20)), mirrored.sample(range(20))
    sides = []
    for old, new in zip(before[:2], after[:2], strict=True):
        assert isinstance(old.inputs, Tensor) and isinstance(new.inputs, Tensor)
        same = (old.inputs == new.inputs).flatten(2).all(2)
        flipped = (old.inputs.flip(-1) == new.inputs).flatten(2).all(2)
        assert (same ^ flipped).all()
        sides.append((flipped.float().unsqueeze(-1) * old.targets).sum(1) / old.targets.sum(1))
    assert torch.equal(*sides), "all examples of a class are on one side"
    assert 0.3 < sides[0].mean() < 0.7

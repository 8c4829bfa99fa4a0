"""Feature maps keep what is where."""

import pytest
import torch

from kshot.backbones.feature_maps import FeatureMaps


def test_a_moved_picture_has_moved_maps():
    torch.manual_seed(0)
    encoder = FeatureMaps((1, 64, 64), hidden=3).eval()
    picture = torch.zeros(1, 1, 64, 64)
    picture[..., 24:38, 28:36] = 1
    maps, moved = (
        encoder(each).unflatten(1, encoder.map_shape) for each in (picture, picture.roll(4, -1))
    )
    # Two pixels at each border are reached by padding; four pixels of a picture are one of a map.
    torch.testing.assert_close(moved[..., 2:-2, 3:-2], maps[..., 2:-2, 2:-3])
    assert (moved - maps).abs().max() > 1e-3


def test_pictures_that_are_too_small_say_so():
    with pytest.raises(ValueError, match="at least 10 px"):
        FeatureMaps((1, 9, 9))
    encoder = FeatureMaps((1, 10, 10), hidden=2).eval()
    assert encoder(torch.zeros(1, 1, 10, 10)).shape == (1, 2)

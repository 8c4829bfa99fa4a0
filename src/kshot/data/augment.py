"""Augmentation of examples: training pictures are turned, sheared, scaled and shifted a little."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kshot.config import AugmentationConfig
from kshot.data.sampler import Sampler, TaskStream
from kshot.episodes import Episodes, Examples

__all__ = ["AugmentedSampler", "move_pictures"]


class AugmentedSampler:
    """A sampler whose pictures are each moved by a random affine map.

    The map of a picture is a function of (seed, split, episode, place in the episode) alone, like
    everything else in an episode.

    Args:
        sampler: where episodes come from; their inputs are pictures (channels, height, width).
        config: how far pictures are moved at most.
        seed: seed of the maps.
        split: name of the split.
    """

    def __init__(
        self, sampler: Sampler, config: AugmentationConfig, *, seed: int = 0, split: str = ""
    ) -> None:
        self.sampler = sampler
        self.config = config
        self.seed = seed
        self.split = split

    def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes of some indices, as one batch of tasks.

        Raises:
            ValueError: when the inputs are no pictures.
        """
        drawn = self.sampler.sample(episodes)
        stream = TaskStream(self.seed, self.split, np.asarray(episodes))
        support = self._augment(drawn.support, stream, "support")
        return drawn._replace(support=support, query=self._augment(drawn.query, stream, "query"))

    def _augment(self, examples: Examples, stream: TaskStream, part: str) -> Examples:
        pictures = examples.inputs
        if not isinstance(pictures, Tensor) or pictures.dim() != 5:
            raise ValueError("Only pictures (channels, height, width) can be augmented.")
        tasks, count, _, height, width = pictures.shape
        way = examples.targets.shape[-1]

        def within(limit: float, name: str, *shape: int) -> Tensor:
            draws = 2 * stream.uniform(f"augment/{part}/{name}", count, *shape) - 1
            return torch.from_numpy(limit * draws).flatten(0, 1).float()

        config = self.config
        angle = within(math.radians(config.rotation), "rotation")
        shear = within(config.shear, "shear")
        scale = 1 + within(config.scale, "scale")
        shift = within(config.shift, "shift", 2) * 2 / torch.tensor([width, height])
        # The map from where a pixel is to where it came from, its place counted from the middle.
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
        lean = torch.eye(2).repeat(tasks * count, 1, 1)
        lean[:, 0, 1] = shear
        maps = torch.cat([turn @ lean / scale[:, None, None], shift[:, :, None]], dim=2)
        if config.mirror:
            # By class, so that support and query of a class stay alike.
            mirrored = torch.from_numpy(stream.bits("augment/mirror", way) % 2 == 1)
            sides = torch.where(mirrored.gather(1, examples.targets.argmax(-1)), -1.0, 1.0)
            maps[:, :, 0] *= sides.view(-1, 1)
        moved = move_pictures(pictures.flatten(0, 1), maps, smooth=config.smooth)
        return examples._replace(inputs=moved.view(pictures.shape))


def move_pictures(
    pictures: Float[Tensor, "n channels height width"],
    maps: Float[Tensor, "n 2 3"],
    *,
    smooth: bool,
) -> Float[Tensor, "n channels height width"]:
    """Each picture under an affine map; what comes in from outside repeats the border.

    Args:
        pictures: what to move.
        maps: from places in the result to places in the picture, both from -1 to 1.
        smooth: mix neighboring pixels; otherwise the nearest is taken, which keeps pictures of
            black and white so.
    """
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    mode = "bilinear" if smooth else "nearest"
    return F.grid_sample(pictures, grid, mode, padding_mode="border", align_corners=False)

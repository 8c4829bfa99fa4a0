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

__all__ = ["AugmentedSampler", "affine_maps", "move_pictures"]


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
        pictures, config = examples.inputs, self.config
        if not isinstance(pictures, Tensor) or pictures.dim() != 5:
            raise ValueError("Only pictures (channels, height, width) can be augmented.")
        unlabelled = examples.targets.sum(-1) == 0
        if examples.mask is not None:
            unlabelled = unlabelled & examples.mask
        if config.moves_classes and unlabelled.any():
            raise ValueError(
                "Examples without a label cannot be moved as their class is: leave mirror, "
                "class_rotation, class_shear and class_scale out, or take unlabelled=0."
            )
        count, _, height, width = pictures.shape[1:]
        draw = _Draw(stream, part, count)
        maps = draw.affine(config.rotation, config.shear, config.scale)
        shift = draw.within(config.shift, "shift", 2) * 2 / torch.tensor([width, height])
        # By class, so that support and query of a class stay alike: the draws know no part.
        of_class = _Draw(stream, "class", examples.targets.shape[-1])
        turned = of_class.affine(config.class_rotation, config.class_shear, config.class_scale)
        if config.mirror:
            turned[..., 0] *= of_class.side("mirror").unsqueeze(-1)
        column = examples.targets.argmax(-1)
        turned = turned.gather(1, column[:, :, None, None].expand(-1, -1, 2, 2))
        moves = torch.cat([turned @ maps, turned @ shift.unsqueeze(-1)], dim=-1)
        moved = move_pictures(
            pictures.flatten(0, 1), moves.flatten(0, 1).float(), smooth=config.smooth
        )
        return examples._replace(inputs=moved.view(pictures.shape))


class _Draw:
    """Random numbers for each of `count` things of every episode."""

    def __init__(self, stream: TaskStream, name: str, count: int) -> None:
        self.stream, self.name, self.count = stream, f"augment/{name}", count

    def within(self, limit: float, purpose: str, *shape: int) -> Tensor:
        """Uniform from -limit to limit, (tasks, count, *shape)."""
        draws = self.stream.uniform(f"{self.name}/{purpose}", self.count, *shape)
        return torch.from_numpy(limit * (2 * draws - 1))

    def side(self, purpose: str) -> Tensor:
        """1 or -1, (tasks, count)."""
        bits = self.stream.bits(f"{self.name}/{purpose}", self.count)
        return torch.from_numpy(np.where(bits % 2 == 1, -1.0, 1.0))

    def affine(self, rotation: float, shear: float, scale: float) -> Tensor:
        """Maps (tasks, count, 2, 2) from where a pixel is to where it came from."""
        angle = self.within(math.radians(rotation), "rotation")
        lean = self.within(shear, "shear")
        return affine_maps(angle, lean, 1 + self.within(scale, "scale"))


def affine_maps(
    angle: Float[Tensor, "*n"], lean: Float[Tensor, "*n"], size: Float[Tensor, "*n"]
) -> Float[Tensor, "*n 2 2"]:
    """Maps that turn by an angle (radians), shear and scale what is moved by them."""
    rows = [angle.cos(), lean * angle.cos() - angle.sin()]
    rows += [angle.sin(), lean * angle.sin() + angle.cos()]
    return torch.stack(rows, -1).unflatten(-1, (2, 2)) / size[..., None, None]


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
    # Centers of pixels. Torch's affine_grid multiplies matrices for this, in seven times the time.
    y, x = ((2 * torch.arange(size).to(maps) + 1) / size - 1 for size in pictures.shape[-2:])
    of_x, of_y, fixed = maps[..., None, None].unbind(2)
    grid = (of_x * x + (of_y * y[:, None] + fixed)).movedim(1, -1)
    mode = "bilinear" if smooth else "nearest"
    return F.grid_sample(pictures, grid, mode, padding_mode="border", align_corners=False)

"""Sinusoids: regression tasks that each ask for one sine wave from a few of its points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from kshot.config import EpisodeConfig, bounds
from kshot.data.sampler import TaskStream
from kshot.episodes import Episodes, Examples
from kshot.options import checks_options

__all__ = ["SINUSOID_VARIANTS", "SinusoidSampler", "SinusoidTasks", "Waves", "sinusoid"]


@checks_options
def sinusoid(
    *, variant: Literal["finn", "nichol", "frequency", "noisy"] = "finn"
) -> "SinusoidTasks":
    """Sine waves of random amplitude and phase, x uniform in [-5, 5], under one of four protocols.

    | variant | y | amplitude | phase | frequency | used by |
    | --- | --- | --- | --- | --- | --- |
    | finn | A sin(x - p) | [0.1, 5] | [0, pi] | 1 | MAML |
    | nichol | A sin(x + p) | [0.1, 5] | [0, 2 pi] | 1 | Reptile |
    | frequency | A sin(w x + p) | [0.1, 5] | [0, pi] | [0.8, 1.2] | Meta-SGD, MT-net |
    | noisy | A sin(x - p) + N(0, 0.3) | [0.1, 5] | [0, pi] | 1 | MMAML |

    Squared errors under different variants do not compare. All draws are uniform. `shot` and
    `query_shot` of an episode are its numbers of points; `way` and `within` do not apply.

    Args:
        variant: Which waves: "finn" (MAML), "nichol" (Reptile: any phase), "frequency" (Meta-SGD:
            other frequencies too) or "noisy" (MMAML: with noise of standard deviation 0.3).

    Example:
        >>> tasks = sinusoid()
        >>> episodes = tasks.sampler("train", EpisodeConfig(shot=10, query_shot=10), 0).sample([0])
        >>> episodes.support.inputs.shape
        torch.Size([1, 10, 1])

    Reference:
        Finn, Abbeel, Levine: Model-agnostic meta-learning for fast adaptation of deep networks.
        ICML 2017, section 5.1. https://arxiv.org/abs/1703.03400
    """
    if variant not in SINUSOID_VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(SINUSOID_VARIANTS)}, not {variant!r}.")
    return SinusoidTasks(protocol=variant, waves=SINUSOID_VARIANTS[variant])


@dataclass(frozen=True)
class Waves:
    """A distribution of waves y = A sin(w x + sign * p) + noise, every range uniform.

    Attributes:
        phase: lowest and highest phase p, in radians.
        sign: sign of the phase.
        frequency: lowest and highest angular frequency w.
        noise: standard deviation of the Gaussian noise, in support and query.
        amplitude: lowest and highest amplitude A.
        x: lowest and highest input.
    """

    phase: tuple[float, float]
    sign: float
    frequency: tuple[float, float] = (1.0, 1.0)
    noise: float = 0.0
    amplitude: tuple[float, float] = (0.1, 5.0)
    x: tuple[float, float] = (-5.0, 5.0)


SINUSOID_VARIANTS = {
    "finn": Waves(phase=(0.0, math.pi), sign=-1.0),
    "nichol": Waves(phase=(0.0, 2 * math.pi), sign=1.0),
    "frequency": Waves(phase=(0.0, math.pi), sign=1.0, frequency=(0.8, 1.2)),
    "noisy": Waves(phase=(0.0, math.pi), sign=-1.0, noise=0.3),
}
"""The published distributions of waves."""


@dataclass(frozen=True)
class SinusoidTasks:
    """The tasks of one variant; each split draws other waves from the same distribution.

    Attributes:
        protocol: name of the variant.
        waves: its distribution.
    """

    protocol: str
    waves: Waves
    name: str = "sinusoid"
    kind: Literal["classification", "regression"] = "regression"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: x."""
        return (1,)

    @property
    def num_outputs(self) -> int | None:
        """One value: y."""
        return 1

    @property
    def preparation(self) -> dict[str, Any]:
        """Empty: an input is a number, not a picture."""
        return {}

    def has_split(self, split: str) -> bool:
        """Whether tasks of this split can be drawn."""
        return split in ("train", "val", "trainval", "test")

    def num_classes(self, split: str) -> int:
        """No classes in regression."""
        return 0

    def sampler(self, split: str, episode: EpisodeConfig, seed: int) -> "SinusoidSampler":
        """A sampler of episodes with `shot` support and `query_shot` query points."""
        if not self.has_split(split):
            raise ValueError(f"{self.name} has the splits train, val and test, not {split!r}.")
        if episode.labelled_share != 1:
            raise ValueError(f"{self.name} has no classes, so no share of them to label.")
        return SinusoidSampler(self.waves, episode, seed=seed, split=split)

    def closed_form_mean(self, x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """E[y | x] over all tasks: the best that a predictor without a support set can do.

        Where training on all tasks together, without adaptation, leads to. With phases over half a
        turn it is +-(2 / pi) E[A] cos(x), averaged over frequencies; over a whole turn it is 0.
        """
        low, high = self.waves.phase
        # E[sin(w x + s p)] = sin(w x) E[cos p] + s cos(w x) E[sin p], p uniform.
        mean_cos = (math.sin(high) - math.sin(low)) / (high - low)
        mean_sin = self.waves.sign * (math.cos(low) - math.cos(high)) / (high - low)
        slow, fast = self.waves.frequency
        center, spread = (fast + slow) / 2, (fast - slow) / 2
        # Averaging over w in center +- spread multiplies by sin(spread x) / (spread x).
        damping = np.sinc(spread * x / math.pi)
        amplitude = sum(self.waves.amplitude) / 2
        wave = mean_cos * np.sin(center * x) + mean_sin * np.cos(center * x)
        return amplitude * damping * wave


class SinusoidSampler:
    """Draws regression episodes; an episode is a function of (seed, split, index) alone.

    Args:
        waves: what to draw from.
        episode: numbers of points; a range of shots pads and masks the support.
        seed: with `split` and the index, all that an episode depends on.
        split: name of the split.
    """

    def __init__(
        self, waves: Waves, episode: EpisodeConfig, *, seed: int = 0, split: str = ""
    ) -> None:
        self.waves = waves
        self.episode = episode
        self.seed = seed
        self.split = split

    def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes of some indices, as one batch of tasks."""
        low, high = bounds(self.episode.shot)
        support = self._points(episodes, "support", high)
        query = self._points(episodes, "query", self.episode.query_shot)
        if low < high:
            shot = self._stream(episodes).integers("shot", low, high)
            real = np.arange(high) < shot[:, None]
            support = support._replace(mask=torch.from_numpy(real))
        return Episodes(support, query, None)

    def curve(
        self, episodes: Sequence[int] | np.ndarray, x: Float[np.ndarray, "tasks n"]
    ) -> Float[np.ndarray, "tasks n"]:
        """The waves of some episodes at given inputs, without noise."""
        stream, waves = self._stream(episodes), self.waves

        def draw(purpose: str, limits: tuple[float, float]) -> np.ndarray:
            low, high = limits
            return low + (high - low) * stream.uniform(purpose, 1)

        angle = draw("frequency", waves.frequency) * x + waves.sign * draw("phase", waves.phase)
        return draw("amplitude", waves.amplitude) * np.sin(angle)

    def _stream(self, episodes: Sequence[int] | np.ndarray) -> TaskStream:
        return TaskStream(self.seed, self.split, np.asarray(episodes, dtype=np.uint64))

    def _points(self, episodes: Sequence[int] | np.ndarray, part: str, count: int) -> Examples:
        """Points of every wave: inputs and targets (tasks, count, 1)."""
        stream, (low, high) = self._stream(episodes), self.waves.x
        x = low + (high - low) * stream.uniform(f"{part} x", count)
        y = self.curve(episodes, x)
        if self.waves.noise:
            y = y + self.waves.noise * _normal(stream, f"{part} noise", count)
        return Examples(
            torch.from_numpy(x[:, :, None]).float(), torch.from_numpy(y[:, :, None]).float()
        )


def _normal(stream: TaskStream, purpose: str, count: int) -> np.ndarray:
    """Standard normal numbers (tasks, count), by Box and Muller."""
    radius, turn = np.moveaxis(stream.uniform(purpose, count, 2), -1, 0)
    return np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * math.pi * turn)

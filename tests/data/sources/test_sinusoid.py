"""Sinusoids: the published distributions, checked against closed forms."""

import numpy as np
import pytest
import torch
from scipy import stats

from kshot.config import EpisodeConfig
from kshot.data.sources.sinusoid import SINUSOID_VARIANTS, sinusoid

CONFIG = EpisodeConfig(shot=10, query_shot=20)


def points(variant: str, tasks: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    episodes = sinusoid(variant=variant).sampler("train", CONFIG, 0).sample(range(tasks))
    assert isinstance(episodes.query.inputs, torch.Tensor)
    return episodes.query.inputs.double().numpy(), episodes.query.targets.double().numpy()


def error_of_mean(values: np.ndarray) -> float:
    """Standard error of the mean over tasks, whose points are not independent."""
    return values.mean(axis=(1, 2)).std() / len(values) ** 0.5


@pytest.mark.parametrize("variant", SINUSOID_VARIANTS)
def test_episodes_have_the_shapes_of_regression(variant):
    tasks = sinusoid(variant=variant)
    episodes = tasks.sampler("val", CONFIG, 0).sample([0, 5, 9])
    assert episodes.support.inputs.shape == episodes.support.targets.shape == (3, 10, 1)
    assert episodes.query.inputs.shape == episodes.query.targets.shape == (3, 20, 1)
    assert episodes.classes is None and episodes.support.mask is None
    assert episodes.support.inputs.dtype == episodes.query.targets.dtype == torch.float32
    assert (tasks.name, tasks.protocol, tasks.kind) == ("sinusoid", variant, "regression")
    assert (tasks.input_shape, tasks.num_outputs, tasks.num_classes("train")) == ((1,), 1, 0)


@pytest.mark.parametrize(
    ("variant", "second_moment", "best_without_support"),
    [
        ("finn", 4.25167, 3.00567),
        ("nichol", 4.25167, 4.25167),
        ("noisy", 4.25167 + 0.09, 3.00567 + 0.09),
    ],
)
def test_closed_form_moments(variant, second_moment, best_without_support):
    x, y = points(variant)
    assert (y**2).mean() == pytest.approx(second_moment, abs=4 * error_of_mean(y**2))
    errors = (y - sinusoid(variant=variant).closed_form_mean(x)) ** 2
    assert errors.mean() == pytest.approx(best_without_support, abs=4 * error_of_mean(errors))


def test_the_mean_of_finns_waves_is_the_published_one():
    x = np.linspace(-5, 5, 11)
    assert sinusoid().closed_form_mean(x) == pytest.approx(-1.6234 * np.cos(x), abs=1e-3)
    assert sinusoid(variant="nichol").closed_form_mean(x) == pytest.approx(0 * x, abs=1e-12)


@pytest.mark.parametrize("variant", SINUSOID_VARIANTS)
def test_the_closed_form_mean_is_the_mean(variant):
    sampler = sinusoid(variant=variant).sampler("train", CONFIG, 1)
    x = np.linspace(-5, 5, 9)
    values = sampler.curve(range(40_000), np.tile(x, (40_000, 1)))
    error = values.std(axis=0) / len(values) ** 0.5
    assert (
        np.abs(values.mean(0) - sinusoid(variant=variant).closed_form_mean(x)) < 4.5 * error
    ).all()


@pytest.mark.parametrize("variant", SINUSOID_VARIANTS)
def test_parameters_and_inputs_have_the_published_ranges(variant):
    """A wave at two points a quarter period apart gives back amplitude, phase and frequency."""
    waves = SINUSOID_VARIANTS[variant]
    sampler = sinusoid(variant=variant).sampler("test", CONFIG, 2)
    step = 1e-3
    grid = np.tile([0.0, step, -step], (20_000, 1))
    value, after, before = sampler.curve(range(20_000), grid).T
    slope, bend = (after - before) / (2 * step), (after + before - 2 * value) / step**2
    # At 0 the wave is A sin(s p), its slope A w cos(s p), its bend -w^2 times its value.
    clear = np.abs(value) > 0.05
    frequency = np.sqrt(-bend[clear] / value[clear])
    low, high = waves.frequency
    assert frequency.min() > low - 1e-3 and frequency.max() < high + 1e-3
    amplitude = np.hypot(value[clear], slope[clear] / frequency)
    phase = waves.sign * np.arctan2(value[clear], slope[clear] / frequency) % (2 * np.pi)
    assert amplitude.min() > 0.1 - 1e-3 and amplitude.max() < 5 + 1e-3
    assert phase.max() < waves.phase[1] + 1e-3
    large = amplitude > 3
    assert stats.kstest(amplitude[large], "uniform", (3, 2)).pvalue > 1e-4
    if low < high:
        assert stats.kstest(frequency, "uniform", (low, high - low)).pvalue > 1e-4
    x, _ = points(variant, 2000)
    assert stats.kstest(x.ravel(), "uniform", (-5, 10)).pvalue > 1e-4


def test_noise_is_gaussian_and_independent():
    sampler = sinusoid(variant="noisy").sampler("train", CONFIG, 0)
    episodes = sampler.sample(range(1000))
    assert isinstance(episodes.query.inputs, torch.Tensor)
    x, y = (
        part[:, :, 0].double().numpy() for part in (episodes.query.inputs, episodes.query.targets)
    )
    noise = y - sampler.curve(range(1000), x)
    assert stats.kstest(noise.ravel() / 0.3, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.1


def test_support_and_query_lie_on_one_wave():
    sampler = sinusoid().sampler("train", CONFIG, 0)
    episodes = sampler.sample([3, 4])
    for part in (episodes.support, episodes.query):
        assert isinstance(part.inputs, torch.Tensor)
        expected = sampler.curve([3, 4], part.inputs[:, :, 0].double().numpy())
        assert part.targets[:, :, 0].numpy() == pytest.approx(expected, abs=1e-5)
    assert not set(episodes.support.inputs.flatten().tolist()) & set(
        episodes.query.inputs.flatten().tolist()
    )


def test_an_episode_is_a_function_of_seed_split_and_index():
    def targets(seed: int, split: str, indices: list[int]) -> torch.Tensor:
        return sinusoid().sampler(split, CONFIG, seed).sample(indices).query.targets

    assert torch.equal(targets(0, "train", [4, 9])[1], targets(0, "train", [9])[0])
    assert not torch.equal(targets(0, "train", [0]), targets(1, "train", [0]))
    assert not torch.equal(targets(0, "train", [0]), targets(0, "test", [0]))


def test_a_larger_support_begins_with_the_smaller():
    def support(shot: int) -> torch.Tensor:
        return sinusoid().sampler("train", EpisodeConfig(shot=shot), 0).sample([0]).support.targets

    assert torch.equal(support(10)[:, :5], support(5))


def test_a_range_of_shots_is_masked():
    episodes = sinusoid().sampler("train", EpisodeConfig(shot=(2, 5)), 0).sample(range(200))
    assert episodes.support.mask is not None
    assert set(episodes.support.mask.sum(1).tolist()) == {2, 3, 4, 5}
    assert episodes.query.mask is None


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="not 'trial'"):
        sinusoid().sampler("trial", CONFIG, 0)
    with pytest.raises(Exception, match="variant"):
        sinusoid(variant="fin")  # pyright: ignore[reportArgumentType]

"""Fine-tuning: joint pre-training, then plain gradient descent on each task."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.mlp import MLP
from kshot.config import EpisodeConfig, TrainingConfig
from kshot.data.sources.sinusoid import sinusoid
from kshot.episodes import Episodes, Examples, one_hot
from kshot.learners.baselines.fine_tuning import FineTuning
from kshot.losses import mean_squared_error
from kshot.testing import meta_gradient_error
from kshot.training.trainer import meta_train

CLASSES = torch.tensor([[4, 0, 7], [2, 7, 9]])
LABELS = torch.tensor([[0, 1, 2, 2, 1, 0], [1, 0, 2, 0, 1, 2]])


def draw(shape: tuple[int, ...], seed: int = 0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, 6, *shape, generator=generator, dtype=torch.float64)
    return Examples(inputs, one_hot(LABELS, 3, torch.float64))


@pytest.fixture
def vectors() -> Episodes:
    return Episodes(draw((4,)), draw((4,), seed=1), CLASSES)


@pytest.fixture
def pictures() -> Episodes:
    return Episodes(draw((1, 16, 16)), draw((1, 16, 16), seed=1), CLASSES)


def build(encoder: nn.Module, num_outputs: int = 10, **options) -> FineTuning:
    return FineTuning(encoder, num_outputs, **options).double()


def mlp() -> MLP:
    torch.manual_seed(0)
    return MLP((4,), widths=(5, 3), activation="softplus")


@pytest.mark.parametrize("training", [True, False])
def test_pre_training_tells_all_training_classes_apart(pictures: Episodes, training: bool):
    torch.manual_seed(0)
    learner = build(Conv4((1, 16, 16), hidden=3)).train(training)
    net = copy.deepcopy(learner.net)
    assert isinstance(pictures.support.inputs, Tensor) and isinstance(pictures.query.inputs, Tensor)
    inputs = torch.cat([pictures.support.inputs, pictures.query.inputs], 1).flatten(0, 1)
    labels = CLASSES.gather(1, torch.cat([LABELS, LABELS], 1)).flatten()
    torch.testing.assert_close(learner(pictures), F.cross_entropy(net(inputs), labels))
    for ours, theirs in zip(learner.net.buffers(), net.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_of_pre_training_is_exact(vectors: Episodes):
    assert meta_gradient_error(build(mlp()), vectors) < 1e-7


def test_padding_is_not_part_of_pre_training(pictures: Episodes):
    """Not of the loss, and not of BatchNorm's statistics either."""
    torch.manual_seed(0)
    learner = build(Conv4((1, 16, 16), hidden=3)).train()
    support, query, _ = pictures
    assert isinstance(support.inputs, Tensor)
    noise = support.inputs[:, :3] * 9 + 5
    padded = Episodes(
        Examples(
            torch.cat([support.inputs, noise], 1),
            F.pad(torch.cat([support.targets, support.targets[:, :3]], 1), (0, 1)),
            torch.arange(9).expand(2, 9) < 6,
        ),
        query._replace(targets=F.pad(query.targets, (0, 1))),
        F.pad(CLASSES, (0, 1), value=-1),
    )
    other = copy.deepcopy(learner)
    torch.testing.assert_close(learner(padded), other(pictures))
    for ours, theirs in zip(learner.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_pre_training_needs_classes_that_the_head_has(vectors: Episodes):
    with pytest.raises(ValueError, match="episodes need `classes`"):
        build(mlp())(vectors._replace(classes=None))
    with pytest.raises(ValueError, match=r"class 9.* 9 outputs"):
        build(mlp(), 9)(vectors)


def test_pre_training_for_regression_fits_all_tasks_with_one_function():
    torch.manual_seed(0)
    learner = build(mlp(), 2, loss=mean_squared_error)
    x, y = torch.randn(2, 3, 5, 4).double(), torch.randn(2, 3, 5, 2).double()
    episodes = Episodes(Examples(x[0], y[0]), Examples(x[1], y[1]))
    expected = F.mse_loss(learner.net(x.flatten(0, 2)), y.flatten(0, 2))
    torch.testing.assert_close(learner(episodes), expected)
    with pytest.raises(ValueError, match=r"3 .*outputs"):
        learner(Episodes(*(Examples(x[i], torch.zeros(3, 5, 3).double()) for i in (0, 1))))
    # As in prediction, fewer numbers than the network has are its first ones.
    fewer = Episodes(Examples(x[0], y[0, ..., :1]), Examples(x[1], y[1, ..., :1]))
    expected = F.mse_loss(learner.net(x.flatten(0, 2))[:, :1], y.flatten(0, 2)[:, :1])
    torch.testing.assert_close(learner(fewer), expected)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
@pytest.mark.parametrize("tune", ["head", "all"])
def test_fine_tuning_is_gradient_descent(vectors: Episodes, strategy: str, tune: str):
    """Against torch.optim.SGD on a copy of the network with a new head."""
    options = {"strategy": strategy, "tune": tune, "inner_lr": 0.2, "num_test_steps": 7}
    learner = build(mlp(), **options).eval()
    logits = learner.predict(learner.adapt(vectors.support), vectors.query.inputs)
    assert isinstance(vectors.support.inputs, Tensor) and isinstance(vectors.query.inputs, Tensor)
    for task in range(2):
        encoder = copy.deepcopy(learner.net.encoder)
        head = nn.Linear(3, 3).double()
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        tuned = [*head.parameters(), *(encoder.parameters() if tune == "all" else ())]
        optimizer = torch.optim.SGD(tuned, lr=0.2)
        for _ in range(7):
            loss = F.cross_entropy(head(encoder(vectors.support.inputs[task])), LABELS[task])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(logits[task], head(encoder(vectors.query.inputs[task])))


def test_only_the_head_is_kept_when_only_it_is_tuned(vectors: Episodes):
    state = build(mlp(), tune="head", num_test_steps=1).adapt(vectors.support)
    assert {name: tuple(value.shape) for name, value in state.params.items()} == {
        "head.weight": (2, 3, 3),
        "head.bias": (2, 3),
    }


def test_in_regression_a_task_keeps_the_head():
    learner = build(mlp(), 2, loss=mean_squared_error, num_test_steps=0)
    x = torch.randn(3, 5, 4).double()
    state = learner.adapt(Examples(x, torch.zeros(3, 5, 2).double()))
    torch.testing.assert_close(learner.predict(state, x)[1], learner.net(x[1]))


def test_any_way_is_served(vectors: Episodes):
    learner = build(mlp(), 3, num_test_steps=1)
    targets = torch.eye(6, dtype=torch.float64).expand(2, 6, 6)
    state = learner.adapt(vectors.support._replace(targets=targets))
    assert learner.predict(state, vectors.query.inputs).shape == (2, 6, 6)


@pytest.mark.parametrize("variant", ["finn", "nichol"])
def test_pre_training_on_waves_leads_to_their_mean(variant: str):
    """Without a support set nothing beats E[y | x]: -(2 / pi) 2.55 cos x, or 0 for any phase."""
    torch.manual_seed(0)
    tasks = sinusoid(variant=variant)
    learner = FineTuning(MLP((1,), widths=(40, 40)), 1, loss=mean_squared_error)
    config = TrainingConfig(iterations=500, meta_batch_size=100, outer_lr=1e-2, device="cpu")
    waves = tasks.sampler("train", EpisodeConfig(1, 10, 10), 0)
    meta_train(learner, waves, config, quiet=True)
    x = np.linspace(-5, 5, 201)
    with torch.no_grad():
        fitted = learner.net(torch.from_numpy(x).float().unsqueeze(1))[:, 0].numpy()
    expected = tasks.closed_form_mean(x)
    assert np.abs(expected).max() == pytest.approx(2.55 * 2 / np.pi if variant == "finn" else 0.0)
    assert np.sqrt(np.mean((fitted - expected) ** 2)) < 0.1

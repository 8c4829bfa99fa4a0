"""The checks find what they are for: each of these learners breaks one part of the contract."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from kshot.episodes import Episodes, Examples, Inputs
from kshot.learner import MetaLearner
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.testing import (
    CHECKS,
    check_determinism,
    check_forward,
    check_learner,
    check_learning,
    check_meta_gradient,
    check_no_grad,
    check_online,
    check_other_sizes,
    check_parameters,
    check_predictions,
    check_purity,
    check_saving,
    check_state,
    check_strategies,
    check_task_independence,
)

Make = Callable[..., Any]


class State(NamedTuple):
    prototypes: Tensor


class Sound(MetaLearner[Any]):
    """A prototypical network in a few lines, from which the broken ones differ in one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh())

    def adapt(self, support: Examples) -> Any:
        return State(class_means(self.encoder(support.inputs), support.targets, support.mask))

    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        return -squared_distances(self.encoder(inputs), state.prototypes)


class StateOnSelf(Sound):
    def adapt(self, support: Examples) -> Any:
        self.prototypes = super().adapt(support).prototypes
        return super().adapt(support)

    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        return -squared_distances(self.encoder(inputs), self.prototypes)


class Counts(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def adapt(self, support: Examples) -> Any:
        self.seen += 1
        return super().adapt(support)


class ChangesItsInputs(Sound):
    def adapt(self, support: Examples) -> Any:
        assert isinstance(support.inputs, Tensor)
        support.inputs.sub_(support.inputs.mean())
        return super().adapt(support)


class LeavesGradients(Sound):
    def adapt(self, support: Examples) -> Any:
        with torch.enable_grad():
            self.encoder(support.inputs).sum().backward()
        return super().adapt(support)


class ChangesItsState(Sound):
    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            state.prototypes.mul_(0.9)
        return super().predict(state, inputs, mask)


class IsRandom(Sound):
    def adapt(self, support: Examples) -> Any:
        state = super().adapt(support)
        return State(state.prototypes + 0.1 * torch.randn_like(state.prototypes))


class IsRandomEvenFromASeed(Sound):
    def meta_loss(self, episodes: Episodes) -> Tensor:
        return super().meta_loss(episodes) * (1 + random.random())


class NotANumber(Sound):
    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        logits = super().predict(state, inputs, mask)
        return torch.cat([logits[..., :-1], logits[..., -1:] * torch.inf], -1)


class WrongShape(Sound):
    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        return super().predict(state, inputs, mask).flatten(0, 1)


class LossPerTask(Sound):
    def meta_loss(self, episodes: Episodes) -> Any:
        return super().meta_loss(episodes).expand(2)


class StateWithoutTasks(Sound):
    def adapt(self, support: Examples) -> Any:
        return {**super().adapt(support)._asdict(), "count": torch.zeros(7)}

    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        return super().predict(State(state["prototypes"]), inputs, mask)


class StateIsAnObject(Sound):
    def adapt(self, support: Examples) -> Any:
        return SimpleNamespace(prototypes=super().adapt(support).prototypes)


class MixesTasks(Sound):
    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        centered = State(state.prototypes - state.prototypes.mean(0))
        return super().predict(centered, inputs, mask)


class KeepsAGraph(Sound):
    def adapt(self, support: Examples) -> Any:
        with torch.enable_grad():
            return super().adapt(support)


class ForgetsWhatWasBefore(Sound):
    online = True

    def observe(self, state: Any, examples: Examples) -> Any:
        return self.adapt(examples)


class ForgetsWhenSaved(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        return super().predict(state, inputs, mask) * self.scale


class CannotBePickled(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.scale = lambda x: x


class OneWayOnly(Sound):
    def adapt(self, support: Examples) -> Any:
        if support.targets.shape[-1] != 3:
            raise ValueError("Bad input.")
        return super().adapt(support)


class FixedWay(Sound):
    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        return super().predict(state, inputs, mask)[..., :3]


class EarlyForward(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.loss_function = self.meta_loss

    def forward(self, episodes: Episodes) -> Tensor:
        return Sound.meta_loss(self, episodes)


class UnusedParameter(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(3))


class InfiniteGradient(Sound):
    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        logits = super().predict(state, inputs, mask)
        return logits + (logits - logits.detach()).abs().sqrt()


class DetachedGradient(Sound):
    def adapt(self, support: Examples) -> Any:
        return State(super().adapt(support).prototypes.detach())


class StrategiesDiffer(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.strategy = "vmap"

    def predict(self, state: Any, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        return super().predict(state, inputs, mask) * (1.01 if self.strategy == "vmap" else 1)


class LearnsTheOpposite(Sound):
    def meta_loss(self, episodes: Episodes) -> Tensor:
        loss = super().meta_loss(episodes)
        return 2 * loss.detach() - loss


BROKEN: list[tuple[type[Sound], Callable[..., None], str]] = [
    (StateOnSelf, check_purity, "keep what is learned in the state"),
    (Counts, check_purity, "changed seen .in training mode"),
    (ChangesItsInputs, check_purity, "must not change their inputs"),
    (LeavesGradients, check_purity, r"changed encoder.0.bias.grad, encoder.0.weight.grad"),
    (ChangesItsState, check_purity, "predict"),
    (IsRandom, check_purity, "same state for the same support"),
    (IsRandomEvenFromASeed, check_determinism, "The same seed"),
    (NotANumber, check_predictions, "finite in every column"),
    (WrongShape, check_predictions, r"\(2, 6, 3\), not \(12, 3\)"),
    (LossPerTask, check_predictions, "one finite number"),
    (StateWithoutTasks, check_state, r"leading dimension of 2 tasks.*\(7,\)"),
    (StateIsAnObject, check_state, "not SimpleNamespace"),
    (MixesTasks, check_task_independence, "depend on the other tasks"),
    (MixesTasks, check_state, "slice of a state"),
    (KeepsAGraph, check_no_grad, "no graph may be kept"),
    (ForgetsWhatWasBefore, check_online, "Adapting to 1 examples and observing the rest"),
    (ForgetsWhenSaved, check_saving, "state_dict must hold all"),
    (CannotBePickled, check_saving, "pickle"),
    (OneWayOnly, check_other_sizes, r"must say that \d classes"),
    (FixedWay, check_other_sizes, "twice the way"),
    (EarlyForward, check_forward, r"self\.meta_loss"),
    (UnusedParameter, check_parameters, "no gradient in spare"),
    (InfiniteGradient, check_parameters, "finite, but is not in encoder"),
    (DetachedGradient, check_meta_gradient, "central differences"),
    (StrategiesDiffer, check_strategies, "same predictions"),
    (LearnsTheOpposite, check_learning, "lower the loss"),
]


def test_a_sound_learner_passes(make_episodes: Make):
    check_learner(Sound(), make_episodes())


def test_every_check_finds_something():
    assert {check for _, check, _ in BROKEN} == {*CHECKS, check_learning, check_meta_gradient}


@pytest.mark.parametrize(
    ("learner", "check", "message"), BROKEN, ids=lambda case: getattr(case, "__name__", "")
)
def test_a_broken_learner_is_found(
    learner: type[Sound],
    check: Callable[..., None],
    message: str,
    make_episodes: Make,
    unchecked_shapes: None,
):
    with pytest.raises(AssertionError, match=message):
        check(learner(), make_episodes())
    with pytest.raises(AssertionError):
        check_learner(learner(), make_episodes())


def test_checks_leave_the_learner_and_the_episodes_alone(make_episodes: Make):
    learner, episodes = Sound(), make_episodes()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    inputs = episodes.support.inputs.clone()
    check_learner(learner, episodes)
    assert learner.training and torch.equal(episodes.support.inputs, inputs)
    assert all(torch.equal(learner.state_dict()[name], before[name]) for name in before)
    assert all(p.grad is None and p.dtype == torch.float32 for p in learner.parameters())

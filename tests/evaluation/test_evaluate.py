"""Evaluation: honest numbers, the same whatever the batch, with nothing left behind."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import Flatten, WithHead
from kshot.config import BatchNormPolicy, EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.episodes import Episodes, Examples, Inputs, one_hot
from kshot.evaluation.evaluate import (
    Evaluation,
    NoNumberError,
    episode_scores,
    evaluate,
    paired_difference,
)
from kshot.learner import MetaLearner
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.optimization.maml import MAML
from kshot.losses import cross_entropy, mean_squared_error


def sampler(
    way: int | tuple[int, int] = 3, shot: int | tuple[int, int] = 1, pixels: int = 16, **options
) -> EpisodeSampler:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 8)
    pictures = rng.normal(size=(80, 1, pixels, pixels)) + rng.normal(size=(10, 1, 1, 1))[labels]
    data = LabelledDataset.from_labels(
        pictures.astype(np.float32), labels, [f"c{i}" for i in range(10)]
    )
    return EpisodeSampler(data, EpisodeConfig(way=way, shot=shot, query_shot=4), **options)


class Blind(MetaLearner[Tensor]):
    """Answers by the picture alone, through a fixed random network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(256, 7))

    def adapt(self, support: Examples) -> Tensor:
        return support.targets[:, 0] * 0

    def predict(self, state: Tensor, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        assert isinstance(inputs, Tensor)
        logits = self.net(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        return logits[..., : state.shape[1]]


class Memory(MetaLearner[Tensor]):
    """Answers by the place of a query: right only if labels leak through the order."""

    def adapt(self, support: Examples) -> Tensor:
        return support.targets

    def predict(self, state: Tensor, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        assert isinstance(inputs, Tensor)
        return state.repeat(1, 1 + inputs.shape[1] // state.shape[1], 1)[:, : inputs.shape[1]]


def conv_learner(policy: BatchNormPolicy = "running") -> ProtoNet:
    torch.manual_seed(0)
    learner = ProtoNet(Conv4((1, 16, 16), hidden=6), batch_norm=policy)
    for name, buffer in learner.named_buffers():
        buffer.uniform_(0.5, 1.5) if name.endswith("var") else buffer.uniform_(-0.1, 0.1)
    return learner


@pytest.mark.parametrize("way", [2, 5])
@pytest.mark.parametrize("learner", [Blind(), Memory()], ids=lambda each: type(each).__name__)
def test_a_learner_that_knows_nothing_is_at_chance(learner: MetaLearner, way: int):
    mean, half_width, n = evaluate(learner, sampler(way), 1000).interval
    assert n == 1000 and abs(mean - 1 / way) < 2 * half_width < 0.05


def test_an_untrained_head_is_at_chance():
    torch.manual_seed(0)
    net = WithHead(Flatten((1, 16, 16)), 5)
    mean, half_width, _ = evaluate(MAML(net, num_inner_steps=0), sampler(5), 1000).interval
    assert abs(mean - 1 / 5) < 2 * half_width


def test_a_learner_that_knows_is_above_chance():
    assert evaluate(NearestCentroid(Flatten((1, 16, 16))), sampler(5), 200).interval.mean > 0.5


@pytest.mark.parametrize("policy", ["running", "batch", "support", "support_and_query"])
@pytest.mark.parametrize("episode", [{}, {"way": (2, 4), "shot": (1, 3)}], ids=["fixed", "ranges"])
def test_scores_do_not_depend_on_the_batch(policy: BatchNormPolicy, episode: dict):
    learner = conv_learner(policy)
    scores = [
        evaluate(learner, sampler(**episode), 11, batch_episodes=size).scores
        for size in (0, 1, 4, 11, 99)
    ]
    for other in scores[1:]:
        assert (other == scores[0]).all()


def test_the_same_sampler_gives_the_same_episodes():
    learner = conv_learner()
    first, second = (evaluate(learner, sampler(seed=3), 20).scores for _ in range(2))
    assert (first == second).all()
    assert (evaluate(learner, sampler(seed=4), 20).scores != first).any()


def test_the_score_is_the_accuracy_of_labelled_real_queries():
    targets = one_hot(torch.tensor([[0, 1, 2, -1, 1]]), 4)
    logits = one_hot(torch.tensor([[0, 3, 0, 0, 1]]), 4)  # right, padded column, wrong, -, masked
    logits[0, 1, 1] = 0.5
    query = Examples(torch.zeros(1, 5, 1), targets, torch.tensor([[True] * 4 + [False]]))
    episodes = Episodes(query, query, torch.tensor([[5, 9, 2, -1]]))
    assert episode_scores(logits, episodes, cross_entropy).tolist() == [pytest.approx(2 / 3)]
    assert episode_scores(logits.bfloat16(), episodes, cross_entropy).dtype == torch.float64
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0, 100.0]]).unsqueeze(-1)
    query = Examples(torch.zeros(1, 5, 1), values * 0, query.mask)
    scores = episode_scores(values, Episodes(query, query), mean_squared_error)
    assert scores.tolist() == [pytest.approx(30 / 4)]


def test_regression_is_scored_by_squared_error():
    class Waves:
        def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
            x = torch.arange(6.0).view(1, 6, 1).repeat(len(episodes), 1, 1)
            y = x * torch.as_tensor(np.asarray(episodes)).view(-1, 1, 1)
            return Episodes(Examples(x, y), Examples(x, y))

    learner = MAML(nn.Linear(1, 1), num_inner_steps=0, loss=mean_squared_error)
    nn.init.zeros_(learner.net.weight)  # pyright: ignore
    nn.init.zeros_(learner.net.bias)  # pyright: ignore
    evaluation = evaluate(learner, Waves(), 4)
    assert evaluation.metric == "mean_squared_error"
    assert evaluation.scores == pytest.approx(np.arange(4.0) ** 2 * 55 / 6)
    nn.init.constant_(learner.net.weight, 1e30)  # pyright: ignore
    with pytest.raises(NoNumberError, match="error in episode 0 is infinite"):
        evaluate(learner, Waves(), 4)


def test_the_policy_is_stored_and_may_be_another_than_the_learners_own():
    learner = conv_learner("running")
    own = evaluate(learner, sampler(), 10)
    other = evaluate(learner, sampler(), 10, batch_norm="batch")
    assert (own.batch_norm, own.transductive) == ("running", False)
    assert (other.batch_norm, other.transductive) == ("batch", True)
    assert (other.scores == evaluate(conv_learner("batch"), sampler(), 10).scores).all()
    pixels = NearestCentroid(Flatten((1, 16, 16)))
    assert evaluate(pixels, sampler(), 10, batch_norm="batch").batch_norm == "none"


class Fails(Blind):
    def predict(self, state: Tensor, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        raise RuntimeError("no prediction")


@pytest.mark.parametrize("fails", [False, True])
def test_training_mode_and_policy_come_back(fails: bool):
    learner = conv_learner("support")
    learner.train()
    learner.encoder.norms[1].eval()  # pyright: ignore
    modes = {name: module.training for name, module in learner.named_modules()}
    assert len(set(modes.values())) == 2
    if fails:
        learner.__class__ = type("Broken", (ProtoNet,), {"predict": Fails.predict})
    seen: list[bool] = []

    def record(done: int) -> None:
        seen.append(any(module.training for module in learner.modules()))

    try:
        evaluate(learner, sampler(), 10, batch_norm="batch", on_batch=record, batch_episodes=4)
    except RuntimeError:
        assert fails
    assert {name: module.training for name, module in learner.named_modules()} == modes
    assert learner.batch_norm == "support"
    assert seen == ([] if fails else [False] * 3)


def test_progress_is_reported():
    done: list[int] = []
    evaluate(conv_learner(), sampler(), 10, batch_episodes=4, on_batch=done.append)
    assert done == [4, 8, 10]


def test_no_graph_is_kept_and_nothing_is_written():
    learner = conv_learner("running")
    before = [tensor.clone() for tensor in learner.state_dict().values()]
    evaluate(learner, sampler(), 5)
    assert all(map(torch.equal, before, learner.state_dict().values()))
    assert all(p.grad is None for p in learner.parameters())


def test_a_learner_in_double_precision_gets_double_precision():
    assert evaluate(conv_learner().double(), sampler(), 5).scores.dtype == np.float64


def test_wrong_inputs_are_refused():
    class Missing(EpisodeSampler):
        def sample(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
            drawn = super().sample(episodes)
            assert isinstance(drawn.query.inputs, Tensor)
            drawn.query.inputs[0, 0] = torch.nan
            return drawn

    source = sampler()
    with pytest.raises(ValueError, match="query inputs hold NaN"):
        evaluate(conv_learner(), Missing(source.dataset, source.episode), 10)
    with pytest.raises(ValueError, match="at least 2 episodes, not 1"):
        evaluate(conv_learner(), sampler(), 1)


def test_a_paired_difference_sees_what_two_intervals_do_not():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0.6, 0.2, 400)
    better = Evaluation(difficulty + rng.normal(0.01, 0.01, 400), "accuracy", "none", False)
    worse = Evaluation(difficulty + rng.normal(0.00, 0.01, 400), "accuracy", "none", False)
    difference = paired_difference(better, worse)
    assert abs(difference.mean - 0.01) < 2 * difference.half_width
    assert difference.mean - difference.half_width > 0, "a difference, on the same episodes"
    gap = better.interval.mean - worse.interval.mean
    assert gap < better.interval.half_width, "which the two intervals alone would not show"
    assert paired_difference(worse, better).mean == -difference.mean


def test_what_cannot_be_paired_is_refused():
    first = Evaluation(np.ones(5), "accuracy", "none", False)
    for other in (
        Evaluation(np.ones(6), "accuracy", "none", False),
        Evaluation(np.ones(5), "mean_squared_error", "none", False),
    ):
        with pytest.raises(ValueError, match="same episodes and metric"):
            paired_difference(first, other)


def test_predictions_that_are_no_numbers_are_refused():
    learner = conv_learner()
    learner.encoder.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with pytest.raises(ValueError, match="encoder gives NaN"):
        evaluate(learner, sampler(), 4)
    blind = Blind()
    blind.net.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with pytest.raises(ValueError, match="predicts NaN in episodes 0 to"):
        evaluate(blind, sampler(), 4)


def test_averages_that_were_never_learned_are_not_read():
    learner = ProtoNet(Conv4((1, 16, 16), hidden=4), batch_norm="batch")
    with pytest.raises(ValueError, match="trained under 'batch', has none"):
        evaluate(learner, sampler(), 4, batch_norm="running")


def test_a_frozen_encoder_reads_its_averages_and_says_so():
    learner = NearestCentroid(Conv4((1, 16, 16), hidden=4))
    assert evaluate(learner, sampler(), 4).batch_norm == "running"
    with pytest.raises(ValueError, match="only under running"):
        evaluate(learner, sampler(), 4, batch_norm="batch")


def test_inner_steps_are_those_asked_for():
    torch.manual_seed(0)
    learner = MAML(WithHead(Conv4((1, 16, 16), hidden=4), 3), num_test_steps=2)
    own, more = evaluate(learner, sampler(), 4), evaluate(learner, sampler(), 4, num_test_steps=7)
    assert (own.num_test_steps, more.num_test_steps, learner.num_test_steps) == (2, 7, 2)
    learner.num_test_steps = 7
    assert np.array_equal(evaluate(learner, sampler(), 4).scores, more.scores)
    with pytest.raises(ValueError, match="takes no inner steps"):
        evaluate(conv_learner(), sampler(), 4, num_test_steps=1)

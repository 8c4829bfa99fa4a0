"""The contract: what every learner inherits."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from kshot.episodes import Episodes, Examples, Inputs, one_hot
from kshot.learner import MetaLearner
from kshot.losses import cross_entropy, mean_squared_error


class Blind(MetaLearner[tuple[()]]):
    """Predicts the same learned logits for everything."""

    def __init__(self, way: int, **options):
        super().__init__(**options)
        self.logits = nn.Parameter(torch.zeros(way))

    def adapt(self, support: Examples) -> tuple[()]:
        return ()

    def predict(self, state: tuple[()], inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        assert isinstance(inputs, Tensor)
        return self.logits.expand(*inputs.shape[:2], -1)


class Counted(NamedTuple):
    counts: Tensor


class Frequency(MetaLearner[Counted]):
    """Predicts how often each class is in the support set."""

    def adapt(self, support: Examples) -> Counted:
        return Counted(support.targets.mean(1))

    def predict(self, state: Counted, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
        assert isinstance(inputs, Tensor)
        return state.counts.unsqueeze(1).expand(-1, inputs.shape[1], -1)


def episodes(way: int = 3, **changes) -> Episodes:
    torch.manual_seed(0)
    support = Examples(torch.randn(2, 4, 5), one_hot(torch.tensor([[0, 1, 2, 0]] * 2), way))
    query = Examples(torch.randn(2, 6, 5), one_hot(torch.tensor([[0, 0, 1, 1, 2, 2]] * 2), way))
    return Episodes(support, query, torch.arange(2 * way).view(2, way))._replace(**changes)


def test_adapt_and_predict_must_be_given():
    with pytest.raises(TypeError, match="abstract"):
        MetaLearner()  # pyright: ignore


def test_the_meta_loss_is_the_query_loss_after_adaptation():
    learner, drawn = Frequency(), episodes()
    log_p = torch.tensor([0.5, 0.25, 0.25]).log_softmax(0)
    expected = -log_p.mean()
    torch.testing.assert_close(learner.meta_loss(drawn), expected)
    torch.testing.assert_close(learner(drawn), expected)


def test_forward_finds_an_overriding_meta_loss():
    class Doubled(Blind):
        def meta_loss(self, episodes: Episodes) -> Tensor:
            return 2 * super().meta_loss(episodes)

    drawn = episodes()
    torch.testing.assert_close(Doubled(3)(drawn), 2 * Blind(3)(drawn))


def test_padding_is_left_out_of_the_meta_loss():
    learner = Blind(4)
    with torch.no_grad():
        learner.logits.copy_(torch.tensor([1.0, 2.0, 3.0, 100.0]))
    drawn = episodes(4, classes=torch.tensor([[3, 8, 5, -1]] * 2))
    mask = torch.tensor([[True, True, False, False, True, True]] * 2)
    query = drawn.query._replace(mask=mask)
    log_p = torch.tensor([1.0, 2.0, 3.0]).log_softmax(0)
    expected = -(log_p[0] + log_p[2]) / 2
    torch.testing.assert_close(learner(drawn._replace(query=query)), expected)
    # Without `classes` every column is a class.
    assert learner(drawn._replace(classes=None)) > 90


def test_tasks_weigh_the_same_whatever_their_size():
    learner = Blind(3)
    with torch.no_grad():
        learner.logits.copy_(torch.tensor([1.0, 2.0, 3.0]))
    drawn = episodes()
    mask = torch.tensor([[True] * 6, [True] + [False] * 5])
    log_p = torch.tensor([1.0, 2.0, 3.0]).log_softmax(0)
    expected = -(log_p.mean() + log_p[0]) / 2
    torch.testing.assert_close(
        learner(drawn._replace(query=drawn.query._replace(mask=mask))), expected
    )


def test_defaults_and_fields():
    learner = Blind(3)
    assert (learner.loss, learner.batch_norm, learner.transductive) == (
        cross_entropy,
        "none",
        False,
    )
    assert Blind(3, batch_norm="batch").transductive
    assert not Blind(3, batch_norm="support_and_query").transductive
    assert Blind(3, loss=mean_squared_error).loss.kind == "regression"


def test_it_is_an_ordinary_module():
    """What wraps a learner (DistributedDataParallel, torch.compile) calls it as one."""
    learner, drawn = Blind(3), episodes()
    nn.Sequential(learner)(drawn).backward()
    assert learner.logits.grad is not None

"""ANIL against MAML on the head alone, and where the two are one."""

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.heads import Flatten, WithHead
from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes
from kshot.learners.optimization.anil import ANIL
from kshot.learners.optimization.maml import MAML


def encoder() -> MLP:
    torch.manual_seed(0)
    return MLP((4,), widths=(6, 5), activation="softplus").double()


def head_of(learner: ANIL | MAML) -> nn.Linear:
    head = learner.head if isinstance(learner, ANIL) else learner.net.head
    assert isinstance(head, nn.Linear)
    return head


def test_on_a_network_without_a_body_it_is_maml(episodes: Episodes):
    maml = MAML(WithHead(Flatten((4,)), 5), inner_lr=0.5, num_inner_steps=3).double()
    anil = ANIL(Flatten((4,)), 5, inner_lr=0.5, num_inner_steps=3).double()
    anil.head.load_state_dict(head_of(maml).state_dict())
    losses = [learner(episodes) for learner in (maml, anil)]
    torch.testing.assert_close(*losses)
    gradients = [
        torch.autograd.grad(loss, list(head_of(learner).parameters()))
        for loss, learner in zip(losses, (maml, anil), strict=True)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("first_order", [False, True])
def test_the_loss_and_meta_gradient_are_those_of_a_slow_loop(first_order: bool, episodes: Episodes):
    true_labels = episodes.support.targets.argmax(-1)
    learner = ANIL(encoder(), 3, inner_lr=0.5, num_inner_steps=2, first_order=first_order).double()
    total = torch.zeros((), dtype=torch.float64)
    for task in range(2):
        head = [learner.head.weight, learner.head.bias]
        support, query = (part.inputs[task] for part in episodes[:2])
        assert isinstance(support, Tensor) and isinstance(query, Tensor)
        for _ in range(2):
            logits = learner.encoder(support) @ head[0].T + head[1]
            loss = nn.functional.cross_entropy(logits, true_labels[task])
            grads = torch.autograd.grad(loss, head, create_graph=not first_order)
            head = [value - 0.5 * grad for value, grad in zip(head, grads, strict=True)]
        logits = learner.encoder(query) @ head[0].T + head[1]
        total = total + nn.functional.cross_entropy(logits, true_labels[task]) / 2
    ours = learner(episodes)
    torch.testing.assert_close(ours, total)
    parameters = list(learner.parameters())
    for one, other in zip(
        torch.autograd.grad(ours, parameters),
        torch.autograd.grad(total, parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_smaller_way_takes_the_first_columns_and_a_larger_one_is_refused(episodes: Episodes):
    learner = ANIL(encoder(), 7).double()
    assert learner.adapt(episodes.support).weight.shape == (2, 3, 5)
    with pytest.raises(ValueError, match="max_way=3"):
        ANIL(encoder(), 2).double().adapt(episodes.support)

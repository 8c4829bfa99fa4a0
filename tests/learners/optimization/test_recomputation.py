import weakref

import pytest
import torch

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.episodes import Episodes, Examples
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.meta_sgd import MetaSGD
from kshot.learners.optimization.recomputation import recomputed


def test_random_numbers_and_autocast_are_those_of_the_first_time():
    weight = torch.randn(64, 64, requires_grad=True)

    def noisy(x):
        return {"y": torch.nn.functional.dropout(x @ weight)}

    x, grads = torch.randn(3, 64, requires_grad=True), []
    for call in (noisy, lambda x: recomputed(noisy, [weight], x)):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            y = call(x)["y"]
        assert y.dtype == torch.bfloat16
        torch.randn(5)
        grads.append(torch.autograd.grad(y.float().square().sum(), (x, weight)))
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_what_needs_no_gradient_gets_none():
    x, y = torch.ones(2, requires_grad=True), torch.ones(2)
    first, second = recomputed(lambda x, y: (x * y, y + 1), (), x, y)
    (first.sum() + second.sum()).backward()
    assert x.grad is not None and y.grad is None


def test_an_argument_that_is_not_read_is_no_reason_to_fail():
    x = torch.ones(2, requires_grad=True)
    recomputed(lambda x: (torch.ones(2), x.detach()), (), x)[0].sum().backward()
    assert x.grad is None


def test_nothing_is_kept_alive():
    x = torch.ones(2, requires_grad=True)
    outputs = recomputed(lambda x: (x.sin(), x.cos()), (), x)
    alive = weakref.ref(outputs[0])
    outputs[0].sum().backward()
    del outputs
    assert alive() is None


def test_parameters_that_moved_meanwhile_are_told():
    x, weight = torch.ones(2), torch.ones(2, requires_grad=True)
    loss = recomputed(lambda x: x * weight * weight, [weight], x).sum()
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_learner_that_went_to_evaluation_is_told():
    learner = MAML(torch.nn.Linear(2, 2), gradient_checkpointing=True)
    examples = Examples(torch.randn(1, 2, 2), torch.eye(2)[None])
    loss = learner(Episodes(examples, examples))
    learner.eval()
    with pytest.raises(RuntimeError, match="from training to evaluation"):
        loss.backward()


def test_it_is_differentiated_once():
    x = torch.ones((), requires_grad=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(recomputed(torch.sin, (), x), x, create_graph=True)


def episodes(shot=1):
    inputs = torch.randn(3, 4 * shot, 1, 16, 16, dtype=torch.float64)
    targets = torch.eye(4, dtype=torch.float64).repeat(3, shot, 1)
    return Episodes(Examples(inputs, targets), Examples(inputs.flip(1), targets.flip(1)))


MORE = {
    "head": {"adapted": ("head.*",)},
    "first order": {"first_order": True},
    "chunks": {"chunk_size": 2},
}


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
@pytest.mark.parametrize("policy", ["batch", "support"])
@pytest.mark.parametrize("rule", ["sgd", "adam", "meta_sgd", "head", "first order", "chunks"])
def test_meta_gradients_are_the_same(rule, policy, strategy):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = WithHead(Conv4((1, 16, 16), hidden=3, strided=True), 4)
        options = {
            "num_inner_steps": 3,
            "batch_norm": policy,
            "strategy": strategy,
            "gradient_checkpointing": checkpointing,
        }
        if rule == "meta_sgd":
            learner = MetaSGD(net, lowest_rate=0.1, highest_rate=0.4, **options)
        else:
            more = MORE.get(rule, {"inner_optimizer": rule})
            learner = MAML(net, inner_lr=0.1, **more, **options)
        learner.double()
        loss = learner(episodes())
        results.append((loss, *torch.autograd.grad(loss, list(learner.parameters()))))
    for kept, again in zip(*results, strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("checkpointing", "most"), [(True, 5), (False, 500)])
def test_a_step_leaves_one_node_in_the_graph(checkpointing, most):
    def nodes(num_steps):
        net = WithHead(Conv4((1, 16, 16), hidden=3, strided=True), 4)
        learner = MAML(
            net, num_inner_steps=num_steps, gradient_checkpointing=checkpointing
        ).double()
        found, waiting = set(), [learner(episodes()).grad_fn]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in found:
                found.add(node)
                waiting += [parent for parent, _ in node.next_functions]
        return len(found)

    per_step = (nodes(4) - nodes(2)) / 2
    assert most / 5 <= per_step <= most

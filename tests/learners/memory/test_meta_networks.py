"""MetaNet against its equations, one example and one weight at a time."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples
from kshot.learners.memory.meta_networks import MetaNet, partners
from kshot.testing import check_meta_gradient


def learner_on(mlp: nn.Module, **options: float) -> MetaNet:
    torch.manual_seed(0)
    return MetaNet(mlp, 3, **{"units": 5, "num_gradients": 4, **options}).double()  # pyright: ignore


@pytest.fixture
def one_shot(vectors: Episodes) -> Episodes:
    """The first example of each class."""
    inputs, targets, _ = vectors.support
    assert isinstance(inputs, Tensor)
    rows = targets.argmax(1).sort(1).values  # in the order in which they come
    return vectors._replace(
        support=Examples(
            inputs.take_along_dim(rows[..., None], 1), targets.take_along_dim(rows[..., None], 1)
        )
    )


def predictions(learner: MetaNet, episodes: Episodes) -> Tensor:
    return learner.predict(learner.adapt(episodes.support), episodes.query.inputs)


def seen(gradient: Tensor) -> Tensor:
    """One number as the networks that give weights see it."""
    if gradient.abs() >= math.exp(-7):
        return torch.stack([gradient.abs().log() / 7, gradient.sign()])
    return torch.stack([-torch.ones_like(gradient), math.exp(7) * gradient])


def for_each_weight(function: Callable[..., Tensor], *gradients: Tensor) -> Tensor:
    columns = [[seen(value) for value in gradient.flatten()] for gradient in gradients]
    return torch.stack([function(*each) for each in zip(*columns, strict=True)]).view_as(
        gradients[0]
    )


def logits_of_one_task(
    learner: MetaNet, inputs: Tensor, labels: list[int], queries: Tensor
) -> Tensor:
    """Algorithm 1 of the paper."""
    u_body, b_body = learner.encoder.representation, learner.encoder.base  # pyright: ignore
    w, w_hidden, w_output = (
        layer.weight for layer in (learner.representation, learner.hidden, learner.output)
    )

    def slope(loss: Tensor, *weights: Tensor) -> list[Tensor]:
        grads = torch.autograd.grad(loss, weights, create_graph=True)
        return [grad.detach() for grad in grads] if learner.first_order else list(grads)

    def cross_entropy(logits: Tensor, label: int) -> Tensor:
        return -logits.log_softmax(-1)[label]

    # Task-level fast weights.
    gradients = []
    for i, (x, label) in list(enumerate(zip(u_body(inputs), labels, strict=True)))[:4]:
        if len(set(labels)) == len(labels):
            loss = cross_entropy(learner.classifier.weight @ F.relu(w @ x), label)
        else:
            others = [*range(i + 1, len(labels)), *range(i)]
            same = i % 2 == 0
            partner = next(j for j in others if (labels[j] == label) == same)
            distance = (w @ x - w @ u_body(inputs)[partner]).norm()
            loss = (distance if same else F.relu(1 - distance)) ** 2 / 2
        gradients += slope(loss, w)

    def read(*sequence: Tensor) -> Tensor:
        state = learner.task_reader.initial_state(1)
        for value in sequence:
            state = learner.task_reader(value.unsqueeze(0), state)
        return learner.task_weight(state[0][0]) / 6**0.5

    fast = for_each_weight(read, *gradients)
    keys = [w @ x + fast @ x for x in u_body(inputs)]

    # Example-level fast weights.
    memory = []
    for x, label in zip(b_body(inputs), labels, strict=True):
        loss = cross_entropy(w_output @ F.relu(w_hidden @ x), label)
        grads = slope(loss, w_hidden, w_output)
        memory.append([for_each_weight(learner.example_weight, grad) / 6**0.5 for grad in grads])

    logits = []
    for of_u, of_b in zip(u_body(queries), b_body(queries), strict=True):
        key = w @ of_u + fast @ of_u
        cosines = torch.stack([F.cosine_similarity(key, k, dim=0) for k in keys])
        attention = (learner.scale * cosines).softmax(0)
        hidden, output = (
            sum(a * weights for a, weights in zip(attention, each, strict=True))
            for each in zip(*memory, strict=True)
        )
        h = F.relu(w_hidden @ of_b) + F.relu(hidden @ of_b)
        logits.append(w_output @ h + output @ h)
    return torch.stack(logits)


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("shots", ["one", "several"])
def test_it_is_the_algorithm_of_the_paper(
    shots: str, first_order: bool, mlp: MLP, vectors: Episodes, one_shot: Episodes
):
    episodes = one_shot if shots == "one" else vectors
    learner = learner_on(mlp, first_order=first_order)
    (inputs, targets, _), query, _ = episodes
    expected = torch.stack(
        [
            logits_of_one_task(learner, x, y.argmax(-1).tolist(), queries)
            for x, y, queries in zip(inputs, targets, query.inputs, strict=True)
        ]
    )
    torch.testing.assert_close(predictions(learner, episodes), expected)
    loss = -expected.log_softmax(-1)[query.targets > 0].mean()
    torch.testing.assert_close(learner(episodes), loss)
    trained = [p for p in learner.parameters() if p.requires_grad]
    torch.testing.assert_close(
        torch.autograd.grad(learner(episodes), trained), torch.autograd.grad(loss, trained)
    )


def test_the_meta_gradient_is_exact_unless_it_is_of_first_order(
    vectors: Episodes, one_shot: Episodes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
    for episodes in (vectors, one_shot):
        check_meta_gradient(
            learner_on(MLP((4,), widths=(5,), activation="tanh"), first_order=False), episodes
        )
        with pytest.raises(AssertionError, match="central differences"):
            check_meta_gradient(learner_on(MLP((4,), widths=(5,), activation="tanh")), episodes)


def test_nothing_but_constant_gradients_comes_from_the_classifier_of_u(
    mlp: MLP, one_shot: Episodes
):
    learner = learner_on(mlp)
    frozen = [name for name, p in learner.named_parameters() if not p.requires_grad]
    assert frozen == ["classifier.weight"]
    before = predictions(learner, one_shot)
    learner.classifier.weight.data = learner.classifier.weight.flip(0)
    assert not torch.allclose(predictions(learner, one_shot), before)
    learner.classifier.requires_grad_(True)
    learner(one_shot).backward()
    assert learner.classifier.weight.grad is None


def test_an_example_is_paired_with_the_next_of_its_class_or_of_another():
    labels = torch.tensor([[0, 1, 0, 1, 1, 2], [0, 1, 2, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    targets = torch.eye(3)[labels]
    targets[1, 3:] = targets[2, 3:] = 0  # no examples
    rows, same, several = partners(targets, 4)
    # The third task has one class alone, the second none with two examples.
    assert rows[0].tolist() == [2, 2, 0, 5]
    assert same[0].tolist() == [True, False, True, False]
    assert rows[1, :3].tolist() == [1, 2, 0] and not same[1, :3].any()
    assert rows[2, :3].tolist() == [1, 2, 0] and same[2, :3].all()
    assert several.tolist() == [True, False, True]


def test_a_query_does_not_depend_on_others(mlp: MLP, vectors: Episodes):
    learner = learner_on(mlp)
    state, inputs = learner.adapt(vectors.support), vectors.query.inputs
    assert isinstance(inputs, Tensor)
    one_by_one = [learner.predict(state, row) for row in inputs.split(1, 1)]
    torch.testing.assert_close(learner.predict(state, inputs), torch.cat(one_by_one, 1))


def test_fewer_gradients_than_asked_for(mlp: MLP, one_shot: Episodes):
    """A support set of three examples has three."""
    few, many = (learner_on(mlp, num_gradients=t) for t in (3, 50))
    torch.testing.assert_close(predictions(few, one_shot), predictions(many, one_shot))
    assert not torch.allclose(
        predictions(learner_on(mlp, num_gradients=2), one_shot), predictions(few, one_shot)
    )


def test_a_smaller_way_takes_the_first_outputs_and_a_larger_one_is_refused(
    mlp: MLP, vectors: Episodes
):
    learner = learner_on(mlp)
    two = vectors.support._replace(targets=vectors.support.targets[..., :2])  # not the third class
    wide = vectors.support._replace(targets=F.pad(two.targets, (0, 1)))
    narrow, padded = (
        learner.predict(learner.adapt(each), vectors.query.inputs) for each in (two, wide)
    )
    torch.testing.assert_close(narrow, padded[..., :2])
    four = vectors.support._replace(targets=F.pad(vectors.support.targets, (0, 1)))
    with pytest.raises(ValueError, match="max_way=4"):
        learner.adapt(four)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        learner_on(mlp, num_gradients=0)


def test_it_computes_under_autocast(mlp: MLP, vectors: Episodes, one_shot: Episodes):
    learner = learner_on(mlp).float()
    for episodes in (vectors, one_shot):
        episodes = episodes.to("cpu", torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            half = predictions(learner, episodes)
        torch.testing.assert_close(half.float(), predictions(learner, episodes), rtol=0.1, atol=0.1)

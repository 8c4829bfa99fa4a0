"""Prototypical networks against a naive loop, their linear form and a closed form."""

import copy

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.normalization import BatchNorm
from kshot.episodes import Episodes, Examples, concatenate
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.learners.metric.prototypical import ProtoNet


@pytest.fixture
def learner(encoder: nn.Module) -> ProtoNet:
    return ProtoNet(encoder)


def naive_logits(encoder: nn.Module, episodes: Episodes) -> Tensor:
    """Equations 1 and 2 of the paper, one query and one class at a time."""
    support, query, _ = episodes
    assert isinstance(support.inputs, Tensor) and isinstance(query.inputs, Tensor)
    way = support.targets.shape[-1]
    logits = torch.zeros_like(query.targets)
    for task in range(len(logits)):
        for k in range(way):
            members = [
                encoder(x[None])[0]
                for x, row in zip(support.inputs[task], support.targets[task], strict=True)
                if row[k] == 1
            ]
            prototype = sum(members) / len(members)
            for number, x in enumerate(query.inputs[task]):
                difference = encoder(x[None])[0] - prototype
                logits[task, number, k] = -sum(d * d for d in difference)
    return logits


def test_it_equals_the_naive_loop(learner: ProtoNet, vectors: Episodes):
    logits = learner.predict(learner.adapt(vectors.support), vectors.query.inputs)
    expected = naive_logits(learner.encoder, vectors)
    torch.testing.assert_close(logits, expected)
    labels = vectors.query.targets.argmax(-1)
    loss = nn.functional.cross_entropy(expected.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(learner(vectors), loss)
    gradients = (
        torch.autograd.grad(value, list(learner.parameters())) for value in (learner(vectors), loss)
    )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_it_equals_its_linear_form(learner: ProtoNet, vectors: Episodes):
    """Section 2.3: -|f - c|^2 = 2 c . f - |c|^2 up to |f|^2, which is the same for every class."""
    state = learner.adapt(vectors.support)
    logits = learner.predict(state, vectors.query.inputs)
    embeddings, prototypes = learner.encoder(vectors.query.inputs), state.summary
    linear = 2 * embeddings @ prototypes.mT - prototypes.square().sum(-1).unsqueeze(1)
    torch.testing.assert_close(logits.softmax(-1), linear.softmax(-1))
    torch.testing.assert_close(
        logits, linear - embeddings.square().sum(-1, keepdim=True), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("policy", ["running", "batch", "support", "support_and_query"])
def test_running_statistics_are_written_only_by_the_meta_loss_in_training(
    policy: str, pictures: Episodes
):
    learner = ProtoNet(Conv4((1, 16, 16), hidden=3), batch_norm=policy).double()  # pyright: ignore

    def statistics() -> list[Tensor]:
        return [buffer.clone() for buffer in learner.buffers()]

    def same(first: list[Tensor], second: list[Tensor]) -> bool:
        return all(map(torch.equal, first, second))

    before = statistics()
    for training in (True, False):
        state = learner.train(training).adapt(pictures.support)
        learner.predict(state, pictures.query.inputs)
        assert (state.support_inputs is not None) == policy.startswith("support")
        assert same(statistics(), before)
    learner.eval()(pictures)
    assert same(statistics(), before)
    learner.train()(pictures)
    assert same(statistics(), before) == (policy != "running")


def test_in_training_support_and_query_share_statistics_as_in_the_authors_code(pictures: Episodes):
    learner = ProtoNet(Conv4((1, 16, 16), hidden=3)).double().train()
    both = concatenate(pictures.support, pictures.query)
    assert isinstance(both.inputs, Tensor)
    embeddings = copy.deepcopy(learner.encoder)(both.inputs.flatten(0, 1)).unflatten(0, (3, 10))
    prototypes = class_means(embeddings[:, :6], pictures.support.targets)
    logits = -squared_distances(embeddings[:, 6:], prototypes)
    labels = pictures.query.targets.argmax(-1)
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(learner(pictures), expected)


@pytest.mark.parametrize("policy", ["running", "batch", "support", "support_and_query"])
def test_in_evaluation_the_meta_loss_is_the_query_loss_after_adaptation(
    policy: str, pictures: Episodes
):
    learner = ProtoNet(Conv4((1, 16, 16), hidden=3), batch_norm=policy).double().eval()  # pyright: ignore
    logits = learner.predict(learner.adapt(pictures.support), pictures.query.inputs)
    torch.testing.assert_close(learner(pictures), learner.query_loss(logits, pictures))


def test_the_policy_of_a_network_without_batch_norm_is_none():
    assert ProtoNet(nn.Linear(2, 3), batch_norm="batch").batch_norm == "none"
    converted = ProtoNet(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), batch_norm="batch")
    assert converted.batch_norm == "batch" and converted.transductive
    assert any(isinstance(layer, BatchNorm) for layer in converted.modules())


def test_with_no_support_it_knows_nothing(pictures: Episodes):
    learner = ProtoNet(Conv4((1, 16, 16), hidden=3)).double().eval()
    empty = Examples(pictures.support.inputs[:, :0], pictures.support.targets[:, :0])  # pyright: ignore
    probabilities = learner.predict(learner.adapt(empty), pictures.query.inputs).softmax(-1)
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, 1 / 3))


def test_prototypes_may_be_compared_by_angle(encoder: nn.Module, vectors: Episodes):
    learner = ProtoNet(encoder, distance="cosine", scale=3.0).double()
    logits = learner.predict(learner.adapt(vectors.support), vectors.query.inputs)
    prototypes = ProtoNet(encoder).adapt(vectors.support).summary
    embeddings = encoder(vectors.query.inputs)
    expected = nn.functional.cosine_similarity(
        embeddings.unsqueeze(2), prototypes.unsqueeze(1), dim=-1
    )
    torch.testing.assert_close(logits, 3 * expected)
    learner(vectors).backward()
    assert learner.scale is not None and learner.scale.grad is not None
    with pytest.raises(ValueError, match="A scale is of cosines"):
        ProtoNet(encoder, scale=3.0)

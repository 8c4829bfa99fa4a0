"""Relation networks against a network that is shown every pair, concatenated."""

import copy

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.feature_maps import FeatureMaps
from kshot.backbones.mlp import MLP
from kshot.backbones.normalization import BatchNorm
from kshot.episodes import Episodes, map_tensors
from kshot.estimator import FewShotClassifier
from kshot.learners.metric.relation import RelationNet


def concatenating(learner: RelationNet) -> nn.Sequential:
    """The relation module as the paper draws it: its first layer reads both side by side."""
    first, second = learner.of_class, learner.of_query
    if isinstance(first, nn.Linear):
        whole = nn.Linear(2 * first.in_features, first.out_features)
    else:
        assert isinstance(first, nn.Conv2d)
        whole = nn.Conv2d(
            2 * first.in_channels, first.out_channels, 3, padding=int(first.padding[0])
        )
    whole.weight.data = torch.cat([first.weight, second.weight], 1).detach()  # pyright: ignore
    assert first.bias is not None
    whole.bias.data = first.bias.detach()  # pyright: ignore
    return nn.Sequential(whole, *copy.deepcopy(learner.relation))


def outputs(learner: RelationNet, episodes: Episodes) -> Tensor:
    return learner.predict(learner.adapt(episodes.support), episodes.query.inputs)


def maps(channels: int = 3, size: int = 16) -> FeatureMaps:
    torch.manual_seed(0)
    return FeatureMaps((1, size, size), hidden=channels)


@pytest.mark.parametrize("of_maps", [True, False])
def test_it_scores_every_pair(of_maps: bool, vectors: Episodes, pictures: Episodes):
    torch.manual_seed(0)
    encoder, episodes = (maps(), pictures) if of_maps else (MLP((4,), widths=(5,)), vectors)
    learner = RelationNet(encoder, hidden=6).double().eval()
    for layer in learner.modules():
        if isinstance(layer, BatchNorm):
            layer.running_mean += torch.randn(layer.num_features)
    logits, module = outputs(learner, episodes), concatenating(learner).eval()
    support, query, _ = episodes
    for task, inputs in enumerate(query.inputs):
        embedded = learner.encoder(support.inputs[task]).unflatten(1, learner.map_shape)
        labels = support.targets[task].argmax(-1)
        for row, x in enumerate(learner.encoder(inputs).unflatten(1, learner.map_shape)):
            for k in range(3):
                pair = torch.cat([embedded[labels == k].sum(0), x]).unsqueeze(0)
                torch.testing.assert_close(logits[task, row, k], module(pair)[0, 0])


def test_scores_are_regressed_to_one_and_zero(pictures: Episodes):
    learner = RelationNet(maps(), hidden=4).double().eval()
    scores = outputs(learner, pictures).sigmoid()
    expected = (scores - pictures.query.targets).square().mean()
    torch.testing.assert_close(learner(pictures), expected)
    softmax = RelationNet(maps(), hidden=4, objective="cross_entropy").double().eval()
    labels = pictures.query.targets.argmax(-1).flatten()
    expected = nn.functional.cross_entropy(outputs(softmax, pictures).flatten(0, 1), labels)
    torch.testing.assert_close(softmax(pictures), expected)


def test_in_training_its_normalization_has_the_statistics_of_all_pairs(pictures: Episodes):
    learner = RelationNet(maps(), hidden=4).double().train()
    reference = copy.deepcopy(learner)
    loss = learner(pictures)
    both = torch.cat([pictures.support.inputs, pictures.query.inputs], 1)  # pyright: ignore
    embedded = reference.encoder(both.flatten(0, 1)).view(3, 10, *learner.map_shape)
    classes = torch.einsum("tnk,tnchw->tkchw", pictures.support.targets, embedded[:, :6])
    pairs = torch.cat(
        [
            classes.unsqueeze(1).expand(-1, 4, -1, -1, -1, -1),
            embedded[:, 6:].unsqueeze(2).expand(-1, -1, 3, -1, -1, -1),
        ],
        3,
    )
    module = concatenating(reference).train()
    scores = module(pairs.flatten(0, 2)).view(3, 4, 3).sigmoid()
    torch.testing.assert_close(loss, (scores - pictures.query.targets).square().mean())
    ours = [m for m in learner.relation.modules() if isinstance(m, BatchNorm)]
    theirs = [m for m in module.modules() if isinstance(m, BatchNorm)]
    assert len(ours) == len(theirs) == 2
    for layer, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(layer.running_mean, other.running_mean)
        torch.testing.assert_close(layer.running_var, other.running_var)


def test_with_batch_statistics_each_task_has_its_own(pictures: Episodes):
    learner = RelationNet(maps(), hidden=4, batch_norm="batch").double().eval()
    assert learner.transductive
    single = [map_tensors(lambda x, task=task: x[task : task + 1], pictures) for task in range(3)]
    together = outputs(learner, pictures)
    torch.testing.assert_close(together, torch.cat([outputs(learner, each) for each in single]))
    with pytest.raises(ValueError, match="no BatchNorm policy 'support', only running, batch"):
        RelationNet(maps(), batch_norm="support")


def test_sizes_are_those_of_the_paper():
    for size, side, last in ((28, 5, 64), (84, 19, 64 * 3 * 3)):
        encoder = FeatureMaps((3, size, size))
        assert encoder.map_shape == (64, side, side)
        learner = RelationNet(encoder)
        linear = [m for m in learner.relation if isinstance(m, nn.Linear)]
        assert [m.in_features for m in linear] == [last, 8]


def test_an_encoder_without_normalization_leaves_the_policy_to_the_module(pictures: Episodes):
    encoder = nn.Sequential(nn.Conv2d(1, 3, 4, stride=4), nn.Flatten())
    encoder.map_shape = (3, 4, 4)  # pyright: ignore
    encoder.embedding_dim = 48  # pyright: ignore
    learner = RelationNet(encoder, hidden=4, batch_norm="batch")
    assert learner.batch_norm == "batch" and learner.transductive
    with pytest.raises(ValueError, match="train it with batch_norm='running'"):
        FewShotClassifier(learner).fit(pictures.support.inputs[0], [0, 1, 2, 2, 1, 0])  # pyright: ignore

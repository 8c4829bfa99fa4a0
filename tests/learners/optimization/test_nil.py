"""NIL: a weighted sum of cosines, by a loop that says so."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.episodes import Episodes, Examples, one_hot
from kshot.learners.embedding import encoder_of
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.nil import NIL


def test_the_score_of_a_class_is_the_sum_of_cosines_with_its_examples(episodes: Episodes):
    support, query, _ = episodes
    assert isinstance(support.inputs, Tensor) and isinstance(query.inputs, Tensor)
    labels = support.targets.argmax(-1)
    expected = torch.zeros(2, 6, 3, dtype=torch.float64)
    for task in range(2):
        for m, z in enumerate(query.inputs[task]):
            for x, label in zip(support.inputs[task], labels[task], strict=True):
                expected[task, m, label] += F.cosine_similarity(z, x, dim=0)
    learner = NIL(nn.Flatten())
    torch.testing.assert_close(learner.predict(learner.adapt(support), query.inputs), expected)


def test_unlabelled_rows_do_not_count(episodes: Episodes):
    support = episodes.support
    learner = NIL(nn.Flatten())
    targets = support.targets.clone()
    targets[:, 4:] = 0
    fewer = Examples(support.inputs[:, :4], support.targets[:, :4])  # pyright: ignore
    torch.testing.assert_close(
        learner.adapt(support._replace(targets=targets)), learner.adapt(fewer)
    )


def test_it_reads_a_trained_body_under_the_policy_it_was_trained_with():
    torch.manual_seed(0)
    maml = MAML(WithHead(Conv4((1, 16, 16), hidden=4), 3))
    inputs, targets = torch.rand(2, 6, 1, 16, 16), one_hot(torch.arange(6).expand(2, -1) % 3, 3)
    learner = NIL(encoder_of(maml)).eval()
    assert learner.transductive and not any(p.requires_grad for p in learner.parameters())
    state = learner.adapt(Examples(inputs, targets))
    alone = learner.predict(state, inputs[:, :2])
    assert not torch.allclose(alone, learner.predict(state, inputs)[:, :2])

import pytest
import torch

from kshot.backbones.heads import Flatten
from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples
from kshot.evaluation.attention import Attentive, has_slots, read_weights
from kshot.learners.memory.mann import MANN
from kshot.learners.memory.ntm import NTM
from kshot.learners.memory.recurrent import RecurrentLearner
from kshot.learners.memory.snail import SNAIL
from kshot.learners.metric.matching import MatchingNet


def episodes() -> Episodes:
    torch.manual_seed(0)
    support = Examples(torch.randn(2, 6, 4), torch.eye(3).repeat(2, 2, 1))
    return Episodes(support, Examples(torch.randn(2, 3, 4), torch.eye(3).repeat(2, 1, 1)))


@pytest.mark.parametrize("full_context", [False, True])
def test_attention_of_matching_networks_is_what_they_predict_by(full_context):
    support, query, _ = episodes()
    learner = MatchingNet(MLP((4,)), full_context=full_context).eval()
    state = learner.adapt(support)
    weights = learner.attention(state, query.inputs)
    assert isinstance(learner, Attentive) and weights.shape == (2, 1, 3, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 3))
    probabilities = learner.predict(state, query.inputs).softmax(-1)
    torch.testing.assert_close(weights[:, 0] @ support.targets, probabilities)


def test_unlabelled_examples_get_no_attention():
    support, query, _ = episodes()
    targets = support.targets.clone()
    targets[:, 0] = 0
    learner = MatchingNet(MLP((4,))).eval()
    state = learner.adapt(support._replace(targets=targets))
    assert learner.attention(state, query.inputs)[..., 0].max() == 0


def test_what_a_step_of_snail_reads_leaves_the_rest_to_itself():
    support, query, _ = episodes()
    learner = SNAIL(MLP((4,)), 3, filters=8).eval()
    weights = learner.attention(learner.adapt(support), query.inputs)
    assert weights.shape == (2, 3, 3, 6)
    assert weights.min() >= 0 and weights.sum(-1).max() < 1


@pytest.mark.parametrize("learner_class", [MANN, NTM])
def test_read_weights_are_those_of_the_steps(learner_class):
    drawn = episodes()
    learner = learner_class(Flatten((4,)), 3, slots=8, width=5, num_heads=2).eval()
    weights = read_weights(learner, drawn)
    assert weights.shape == (2, 9, 2, 8)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 9, 2))
    # The memory after the whole support set holds the weights of its last step.
    last = learner.adapt(drawn.support).summary.memory.weights[:, :2]
    torch.testing.assert_close(weights[:, 5], last)


def test_a_learner_without_slots_is_told():
    learner = RecurrentLearner(Flatten((4,)), 3)
    assert not has_slots(learner) and not has_slots(MatchingNet(MLP((4,))))
    with pytest.raises(ValueError, match="no slots"):
        read_weights(learner, episodes())

import pytest
import torch
from torch import nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.episodes import Episodes, Examples
from kshot.evaluation.evaluate import evaluation_mode
from kshot.learners.ensemble import Ensemble
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.optimization.maml import MAML
from kshot.testing import check_learner


def protonets(count: int, **options) -> list[ProtoNet]:
    return [ProtoNet(nn.Linear(4, 8), **options) for _ in range(count)]


@pytest.fixture
def episodes() -> Episodes:
    torch.manual_seed(0)
    support, query = torch.randn(2, 2, 6, 4)
    targets = torch.eye(3).repeat(2, 2, 1)
    return Episodes(Examples(support, targets), Examples(query, targets))


def test_it_predicts_the_mean_of_its_members(episodes: Episodes):
    members = protonets(3)
    ensemble = Ensemble(members)
    support, inputs = episodes.support, episodes.query.inputs
    alone = [each.predict(each.adapt(support), inputs) for each in members]
    together = ensemble.predict(ensemble.adapt(support), inputs)
    torch.testing.assert_close(together, sum(alone) / 3)


def test_it_keeps_the_contract(episodes: Episodes):
    check_learner(Ensemble(protonets(2)), episodes)


def test_how_it_is_evaluated_holds_for_each_member():
    members = [MAML(WithHead(Conv4((1, 16, 16), hidden=4), 5)) for _ in range(2)]
    ensemble = Ensemble(members)
    assert ensemble.transductive and not ensemble.online
    with evaluation_mode(ensemble, "support_and_query", num_test_steps=3):
        for each in (ensemble, *members):
            assert (each.batch_norm, each.num_test_steps) == ("support_and_query", 3)
            assert not each.training and not each.transductive
    for each in (ensemble, *members):
        assert (each.batch_norm, each.num_test_steps, each.training) == ("batch", 1, True)


def test_members_that_differ_are_refused():
    with pytest.raises(ValueError, match="at least one learner"):
        Ensemble([])
    steps = [MAML(nn.Linear(4, 3), num_inner_steps=number) for number in (1, 2)]
    with pytest.raises(ValueError, match="these 2 have 2 kinds"):
        Ensemble(steps)

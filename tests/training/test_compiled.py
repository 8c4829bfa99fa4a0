import copy
import os
import subprocess
import sys

import pytest
import torch

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.backbones.mlp import MLP
from kshot.config import EpisodeConfig, TrainingConfig
from kshot.data.sources.sinusoid import sinusoid
from kshot.episodes import Episodes, Examples
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.maml_plus_plus import MAMLPlusPlus
from kshot.losses import mean_squared_error
from kshot.training.compiled import CompiledMetaLoss
from kshot.training.trainer import meta_train

COMPILED = TrainingConfig(
    iterations=3, meta_batch_size=4, device="cpu", precision="float64", compile=True
)


def waves(shot=5):
    return sinusoid().sampler("train", EpisodeConfig(way=1, shot=shot, query_shot=5), seed=0)


def maml():
    torch.manual_seed(0)
    net = torch.nn.Sequential(MLP((1,), widths=(8,)), torch.nn.Linear(8, 1))
    return MAML(net, inner_lr=0.01, loss=mean_squared_error)


@pytest.mark.parametrize("micro_batch_size", [0, 2])
def test_training_by_the_compiled_gradient_is_the_same(micro_batch_size):
    config = {**vars(COMPILED), "micro_batch_size": micro_batch_size}
    eager, compiled = maml(), maml()
    meta_train(eager, waves(), TrainingConfig(**{**config, "compile": False}), quiet=True)
    meta_train(compiled, waves(), TrainingConfig(**config), quiet=True)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-10, atol=1e-12)
        assert not value.equal(maml().state_dict()[name])


def test_running_averages_move_in_training_as_they_do_uncompiled(sampler, uncompiled):
    torch.manual_seed(0)
    eager = ProtoNet(Conv4((1, 16, 16), hidden=4, strided=True), batch_norm="running")
    compiled = copy.deepcopy(eager)
    before = copy.deepcopy(eager.state_dict())
    for learner, config in (
        (eager, {**vars(COMPILED), "compile": False}),
        (compiled, vars(COMPILED)),
    ):
        meta_train(learner, sampler, TrainingConfig(**config), quiet=True)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-6, atol=1e-8)
        assert not value.equal(before[name])


def test_a_phase_has_a_graph_of_its_own(uncompiled):
    torch.manual_seed(0)
    net = torch.nn.Sequential(MLP((1,), widths=(8,)), torch.nn.Linear(8, 1)).double()
    phases = {"num_inner_steps": 2, "first_order_iterations": 1, "multi_step_iterations": 3}
    eager = MAMLPlusPlus(net, inner_lr=0.01, loss=mean_squared_error, **phases).train()
    loss = CompiledMetaLoss(copy.deepcopy(eager))
    for _ in range(5):
        episodes = waves().sample([0, 1]).to("cpu", torch.float64)
        torch.testing.assert_close(loss(episodes), eager(episodes))
    assert len(loss._gradients) == 3
    assert loss.learner.iterations == eager.iterations == 5


def test_each_shape_of_episodes_has_a_graph_of_its_own(uncompiled):
    loss = CompiledMetaLoss(maml())
    for shot in (5, 3, 5):
        episodes = waves(shot).sample([0, 1])
        torch.testing.assert_close(loss(episodes), loss.learner(episodes))
    assert len(loss._gradients) == 2


def test_frozen_parameters_stay(uncompiled):
    learner = maml()
    learner.net[0].requires_grad_(False)
    loss = CompiledMetaLoss(learner)
    loss(waves().sample([0])).backward()
    assert [p.grad is None for p in learner.parameters()] == [True, True, False, False]


def test_it_is_differentiated_once(uncompiled):
    learner = maml()
    loss = CompiledMetaLoss(learner)(waves().sample([0]))
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(loss, list(learner.parameters()), create_graph=True)


def test_gradient_checkpointing_is_refused(uncompiled):
    learner = maml()
    learner.gradient_checkpointing = True
    with pytest.raises(ValueError, match="MAML cannot be traced to one graph"):
        CompiledMetaLoss(learner)(waves().sample([0]))


STEPS = """
import copy, torch, kshot
from kshot.training.compiled import compiled
torch.manual_seed(0)
eager = kshot.MANN(kshot.Flatten((2,)), 3, hidden=4, slots=5, width=3, num_heads=2).double()
learner = copy.deepcopy(eager)
loss = compiled(learner)
for _ in range(2):
    examples = kshot.Examples(torch.rand(2, 6, 2).double(), torch.eye(3).double().repeat(2, 2, 1))
    episodes = kshot.Episodes(examples, examples, torch.arange(3).expand(2, 3))
    values = [each(episodes) for each in (eager, loss)]
    torch.testing.assert_close(*values)
    for each in values:
        each.backward()
grads = [[p.grad for p in each.parameters()] for each in (eager, learner)]
torch.testing.assert_close(*grads)
print(torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


def test_a_step_of_reading_is_compiled_once_for_each_use_of_it():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KSHOT_CHECK_TYPES": "0"}
    command = [sys.executable, "-c", STEPS]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert process.returncode == 0, process.stderr
    # The first step, whose memory has no gradient yet, the others, and the one of all queries.
    assert process.stdout.strip() == "3"


def test_what_the_loss_does_not_read_is_left_alone(uncompiled):
    learner = maml()
    learner.unread = torch.nn.Parameter(torch.ones(2))
    CompiledMetaLoss(learner)(waves().sample([0])).backward()
    assert learner.unread.grad is None


def test_shapes_that_values_decide_are_refused(uncompiled):
    class Counting(MAML):
        def meta_loss(self, episodes):
            return super().meta_loss(episodes) / len(
                episodes.query.targets[episodes.query.targets > 0]
            )

    learner = Counting(torch.nn.Linear(1, 1), loss=mean_squared_error)
    with pytest.raises(ValueError, match="shape depends on values"):
        CompiledMetaLoss(learner)(waves().sample([0]))


def test_many_shapes_are_warned_of(uncompiled):
    loss = CompiledMetaLoss(maml())
    with pytest.warns(UserWarning, match="8 graphs were compiled"):
        for shot in range(1, 9):
            loss(waves(shot).sample([0]))


def test_random_numbers_go_on(uncompiled):
    class Noisy(MAML):
        def meta_loss(self, episodes):
            return super().meta_loss(episodes) * torch.rand(())

    learner = Noisy(torch.nn.Linear(1, 1), loss=mean_squared_error)
    episodes, found = waves().sample([0]), []
    for loss in (learner, CompiledMetaLoss(learner)):
        torch.manual_seed(0)
        found.append([loss(episodes).item() for _ in range(3)])
    assert found[0] == pytest.approx(found[1])
    assert len(set(found[1])) == 3


def test_patches_compile():
    torch.manual_seed(0)
    net = WithHead(Conv4((1, 16, 16), hidden=4, strided=True), 3)
    learner = MAML(net, inner_lr=0.1).double()
    inputs = torch.randn(2, 3, 1, 16, 16, dtype=torch.float64)
    examples = Examples(inputs, torch.eye(3, dtype=torch.float64).expand(2, -1, -1))
    episodes = Episodes(examples, Examples(inputs.flip(0), examples.targets))
    losses = [learner(episodes), CompiledMetaLoss(learner)(episodes)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, list(learner.parameters())) for loss in losses),
        rtol=1e-9,
        atol=1e-12,
    )

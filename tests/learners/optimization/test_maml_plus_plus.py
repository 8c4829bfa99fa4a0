"""MAML++: all switches off it is MAML, and each switch does what the paper says of it."""

import copy

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.backbones.mlp import MLP
from kshot.backbones.normalization import BatchNorm
from kshot.episodes import Episodes, Examples, one_hot
from kshot.evaluation.evaluate import evaluate
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.maml_plus_plus import MAMLPlusPlus, step_weights
from kshot.learners.optimization.update_rules import StepRates
from kshot.transforms import part_of_outer_step

OFF = {
    "multi_step_iterations": 0,
    "learned_rates": False,
    "per_step_affine": False,
    "per_step_statistics": False,
}
STEPS = {"num_inner_steps": 2, "inner_lr": 0.3}


def vectors_net() -> nn.Module:
    torch.manual_seed(0)
    return WithHead(MLP((4,), widths=(6, 5), activation="softplus"), 3).double()


def pictures_net() -> nn.Module:
    torch.manual_seed(0)
    return WithHead(Conv4((1, 16, 16), hidden=3), 3).double()


@pytest.fixture
def pictures() -> Episodes:
    generator = torch.Generator().manual_seed(0)
    targets = one_hot(torch.tensor([[0, 1, 2, 2, 1, 0], [1, 0, 2, 0, 1, 2]]), 3, torch.float64)
    support, query = (
        Examples(torch.rand(2, 6, 1, 16, 16, generator=generator, dtype=torch.float64), targets)
        for _ in range(2)
    )
    return Episodes(support, query)


def slopes(learner: MAML | MAMLPlusPlus, loss: Tensor) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(loss, list(learner.net.parameters()), allow_unused=True)


@pytest.mark.parametrize("policy", ["batch", "support", "support_and_query"])
def test_with_all_switches_off_it_is_maml(policy, pictures: Episodes):
    maml = MAML(pictures_net(), batch_norm=policy, **STEPS)
    other = MAMLPlusPlus(pictures_net(), batch_norm=policy, **OFF, **STEPS)
    losses = maml(pictures), other(pictures)
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    torch.testing.assert_close(slopes(maml, losses[0]), slopes(other, losses[1]), rtol=0, atol=0)
    states = [learner.eval().adapt(pictures.support) for learner in (maml, other)]
    predictions = [
        learner.predict(state, pictures.query.inputs)
        for learner, state in zip((maml, other), states, strict=True)
    ]
    torch.testing.assert_close(*predictions, rtol=0, atol=0)


def test_the_loss_is_the_weighted_sum_of_the_losses_after_each_step(episodes: Episodes):
    learner = MAMLPlusPlus(vectors_net(), **{**OFF, "multi_step_iterations": 10}, **STEPS)
    learner.iterations.fill_(5)
    each = [MAML(vectors_net(), inner_lr=0.3, num_inner_steps=step)(episodes) for step in (1, 2)]
    torch.testing.assert_close(learner(episodes), 0.25 * each[0] + 0.75 * each[1])


def test_the_weights_of_steps_are_those_of_the_authors_code():
    def weights(iteration: int, until: int) -> list[float]:
        return step_weights(5, torch.tensor(iteration, dtype=torch.float64), until).tolist()

    expected = [[0.2] * 5, [0.1] * 4 + [0.6], [0.02] * 4 + [0.92], [0.0] * 4 + [1.0]]
    torch.testing.assert_close([weights(epoch, 10) for epoch in (0, 5, 9, 10)], expected)
    assert weights(99, 100)[0] == 0.03 / 5, "an earlier step never counts less than this"


def test_after_the_multi_step_iterations_the_last_loss_alone_counts(episodes: Episodes):
    learner = MAMLPlusPlus(vectors_net(), **{**OFF, "multi_step_iterations": 1}, **STEPS)
    expected = MAML(vectors_net(), **STEPS)(episodes)
    first, second = learner(episodes), learner(episodes)
    torch.testing.assert_close(second, expected)
    assert abs(first - expected) > 1e-6


def test_iterations_are_counted_in_training_alone_and_saved(episodes: Episodes):
    learner = MAMLPlusPlus(vectors_net(), **STEPS)
    learner(episodes), learner(episodes)
    learner.eval()(episodes)
    assert learner.state_dict()["iterations"] == 2


def test_of_the_micro_batches_of_an_outer_step_the_last_counts(episodes: Episodes):
    learner = MAMLPlusPlus(vectors_net(), **STEPS)
    with part_of_outer_step():
        learner(episodes)
    assert learner.iterations == 0
    learner(episodes)
    assert learner.iterations == 1


def test_what_is_frozen_is_not_trained(pictures: Episodes):
    net = pictures_net()
    layer = next(each for each in net.modules() if isinstance(each, BatchNorm))
    layer.weight.requires_grad_(False)
    learner = MAMLPlusPlus(net, **STEPS)
    name = next(iter(learner._norms))
    assert not learner.affine.value(f"{name}.weight").requires_grad
    assert learner.affine.value(f"{name}.bias").requires_grad


def test_a_layer_that_is_not_used_keeps_its_averages(pictures: Episodes):
    net = pictures_net()
    net.unused = BatchNorm(3)
    learner = MAMLPlusPlus(net, **STEPS)
    learner(pictures)
    assert not learner.averages.value("unused.running_mean").any()
    assert learner.averages.value(f"{next(iter(learner._norms))}.running_mean").any()


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_averages_are_kept_under_autocast(strategy, pictures: Episodes):
    learner = MAMLPlusPlus(pictures_net().float(), strategy=strategy, **STEPS)
    with torch.autocast("cpu", torch.bfloat16):
        learner(pictures.to("cpu", torch.float32)).backward()
    for name in learner.averages.names:
        assert learner.averages.value(name).dtype == torch.float32
        assert learner.averages.value(name).isfinite().all()


def test_the_first_iterations_are_of_first_order(episodes: Episodes):
    learner = MAMLPlusPlus(vectors_net(), first_order_iterations=1, **OFF, **STEPS)
    for first_order in (True, False):
        expected = MAML(vectors_net(), first_order=first_order, **STEPS)
        torch.testing.assert_close(
            slopes(learner, learner(episodes)), slopes(expected, expected(episodes))
        )


def test_every_step_and_tensor_has_a_rate(episodes: Episodes):
    learner = MAMLPlusPlus(vectors_net(), **STEPS)
    assert isinstance(learner.rule, StepRates)
    assert learner.rule.rates.shape == (2, len(list(learner.net.parameters())))
    learner(episodes).backward()
    assert learner.rule.rates.grad is not None and learner.rule.rates.grad.all()


def test_scale_and_shift_are_of_the_step_and_not_adapted(pictures: Episodes):
    learner = MAMLPlusPlus(pictures_net(), **STEPS)
    layer = next(name for name in learner.affine.names if name.endswith("weight"))
    assert layer not in learner.adapted and not learner.net.get_parameter(layer).requires_grad
    learner(pictures).backward()
    scales = learner.affine.value(layer)
    assert scales.shape == (3, 3)  # before the first of two steps and after each; channels
    assert scales.grad is not None and scales.grad.any(1).all()
    with torch.no_grad():
        scales[-1] *= 2
    state = learner.adapt(pictures.support)
    torch.testing.assert_close(state.params[layer], scales[-1].expand(2, -1))


def test_averages_are_read_in_evaluation_and_change_predictions(pictures: Episodes):
    learner = MAMLPlusPlus(pictures_net(), batch_norm="per_step", **STEPS)
    for _ in range(3):
        learner(pictures)
    learner.eval()

    def predictions(net: MAMLPlusPlus, inputs: Tensor) -> Tensor:
        return net.predict(net.adapt(pictures.support), inputs)

    inputs = pictures.query.inputs
    assert isinstance(inputs, Tensor)
    before = predictions(learner, inputs)
    torch.testing.assert_close(predictions(learner, inputs[:, :1]), before[:, :1])
    assert not learner.transductive
    for step in range(3):  # the support losses before both steps, and the query after them
        other = copy.deepcopy(learner)
        for name in other.averages.names:
            other.averages.value(name)[step] += 0.5
        assert not torch.allclose(predictions(other, inputs), before), f"after {step} steps"


def test_averages_approach_the_statistics_of_all_pictures_of_a_meta_batch(pictures: Episodes):
    learner = MAMLPlusPlus(pictures_net(), batch_norm="per_step", **STEPS)
    name, layer = next(iter(learner._norms.items()))
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        everything = torch.cat([pictures.support.inputs, pictures.query.inputs], 1)  # pyright: ignore
        MAML(learner.net, **STEPS).train().network_outputs({}, everything.flatten(0, 1), 3)
    hook.remove()
    learner(pictures)
    averages = learner.averages.value(f"{name}.running_mean")[0]
    variances = learner.averages.value(f"{name}.running_var")[0]
    of_all = seen[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(averages, 0.1 * of_all.mean(1))
    torch.testing.assert_close(variances, 0.9 + 0.1 * of_all.var(1, correction=0))


def test_further_steps_at_test_repeat_the_last_rates(episodes: Episodes):
    learner = MAMLPlusPlus(vectors_net(), num_test_steps=4, **STEPS).eval()
    expected = MAML(vectors_net(), num_inner_steps=4, inner_lr=0.3)
    torch.testing.assert_close(
        learner.adapt(episodes.support).params, expected.adapt(episodes.support).params
    )


def test_averages_that_were_not_kept_are_not_read(pictures: Episodes):
    class One:
        def sample(self, episodes) -> Episodes:
            return pictures

    learner = MAMLPlusPlus(pictures_net(), per_step_statistics=False, **STEPS)
    with pytest.raises(ValueError, match="cannot be evaluated under the BatchNorm policy 'per_s"):
        evaluate(learner, One(), 2, batch_norm="per_step")


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least 1 inner step"):
        MAMLPlusPlus(vectors_net(), num_inner_steps=0)
    with pytest.raises(ValueError, match="per_step_statistics=True"):
        MAMLPlusPlus(pictures_net(), batch_norm="per_step", per_step_statistics=False)
    with pytest.raises(ValueError, match="no BatchNorm policy 'per_step'"):
        MAML(pictures_net(), batch_norm="per_step")


def test_it_is_trained_by_plain_pytorch(pictures: Episodes):
    learner = MAMLPlusPlus(pictures_net(), multi_step_iterations=5)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = learner(pictures)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

"""Embedding a batch of tasks: in one call, or each task under its own statistics."""

import copy

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.normalization import BatchNorm
from kshot.config import BatchNormPolicy
from kshot.learners.embedding import embed_pooled, embed_query, embed_support

OWN_STATISTICS: list[BatchNormPolicy] = ["batch", "support", "support_and_query"]


def encoder() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()
    for tensor in (*net.parameters(), *net.buffers()):
        tensor.data.uniform_(0.5, 1.5)
    return net


def draw(n: int, tasks: int = 3) -> Tensor:
    return torch.randn(tasks, n, 3, dtype=torch.float64)


MASK = torch.tensor([[True, True, False, True], [True] * 4, [False, True, True, False]])


class Sees(nn.Module):
    """Remembers what it was shown."""

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        self.inputs = inputs
        x = inputs["x"] if isinstance(inputs, dict) else inputs
        return x * 2


def test_pooled_tasks_are_embedded_in_one_call():
    x, sees = draw(4), Sees()
    assert torch.equal(embed_pooled(sees, x, None), 2 * x)
    assert isinstance(sees.inputs, Tensor) and torch.equal(sees.inputs, x.flatten(0, 1))


def test_padding_is_not_shown_to_the_encoder_and_embedded_as_zero():
    x, sees = draw(4), Sees()
    embeddings = embed_pooled(sees, x, MASK)
    assert torch.equal(embeddings, 2 * x * MASK.unsqueeze(-1))
    assert isinstance(sees.inputs, Tensor) and torch.equal(sees.inputs, x[MASK])


def test_inputs_may_be_a_dictionary():
    inputs: dict[str, Tensor] = {"x": draw(4), "tokens": torch.ones(3, 4, 7, dtype=torch.long)}
    sees = Sees()
    assert torch.equal(embed_pooled(sees, inputs, MASK), 2 * inputs["x"] * MASK.unsqueeze(-1))
    assert isinstance(sees.inputs, dict) and sees.inputs["tokens"].shape == (9, 7)


@pytest.mark.parametrize("n", [0, 4])
def test_sets_may_be_empty_or_all_padding(n: int):
    net, x = encoder(), draw(n)
    assert embed_pooled(net, x, None).shape == (3, n, 2)
    assert not embed_pooled(net, x, torch.zeros(3, n, dtype=torch.bool)).any()


@pytest.mark.parametrize("training", [True, False])
def test_running_averages_are_written_only_when_asked_in_training(training: bool):
    net, x = encoder().train(training), draw(4)
    before = copy.deepcopy(net.state_dict())

    def changed() -> bool:
        return any(not torch.equal(before[k], v) for k, v in net.state_dict().items())

    read = embed_pooled(net, x, MASK)
    embed_support(net, "running", x, MASK)
    for policy in OWN_STATISTICS:
        embed_support(net, policy, x, MASK)
        embed_query(net, policy, x, None, x, MASK)
    assert not changed()
    torch.testing.assert_close(read[MASK], copy.deepcopy(net).eval()(x[MASK]))
    written = embed_pooled(net, x, MASK, update_statistics=True)
    assert changed() == training
    if training:
        torch.testing.assert_close(written[MASK], copy.deepcopy(net)(x[MASK]))


@pytest.mark.parametrize("policy", OWN_STATISTICS)
@pytest.mark.parametrize("masked", [False, True])
def test_each_task_has_its_own_statistics(policy: BatchNormPolicy, masked: bool):
    net, support, query = encoder(), draw(4), draw(5)
    mask = MASK if masked else None
    together = embed_support(net, policy, support, mask)
    queries = embed_query(net, policy, query, None, support, mask)
    for task in range(3):
        real = support[task][MASK[task]] if masked else support[task]
        alone = embed_support(net, policy, real[None], None)
        rows = MASK[task] if masked else torch.ones(4, dtype=torch.bool)
        torch.testing.assert_close(together[task][rows], alone[0])
        expected = embed_query(net, policy, query[task][None], None, real[None], None)
        torch.testing.assert_close(queries[task], expected[0])


def test_an_encoder_without_vectors_says_what_to_do():
    with pytest.raises(ValueError, match=r"\(12, 2, 2\).*\(12, embedding\).*flatten"):
        embed_pooled(nn.Unflatten(1, (2, 2)), torch.zeros(3, 4, 4), None)
    for policy in ("batch", "running"):
        with pytest.raises(ValueError, match="flatten"):
            embed_support(nn.Unflatten(1, (2, 2)), policy, torch.zeros(3, 4, 4), None)

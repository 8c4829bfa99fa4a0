"""Matching networks against the equations, one query and one support example at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.episodes import Episodes, Examples
from kshot.learners.metric.full_context import QueryContext, SupportContext
from kshot.learners.metric.matching import MatchingNet, log_attention


def similarity(learner: MatchingNet, x: Tensor, y: Tensor) -> Tensor:
    if learner.scale is None:
        return -(x - y).square().sum()
    return learner.scale * F.cosine_similarity(x, y, dim=0)


@pytest.mark.parametrize("name", ["cosine", "euclidean"])
def test_the_labels_of_the_support_set_are_mixed_by_attention(
    name: str, encoder: nn.Module, vectors: Episodes
):
    options = {"scale": 3.0} if name == "cosine" else {}
    learner = MatchingNet(encoder, similarity=name, **options).double()  # pyright: ignore
    support, query, _ = vectors
    probabilities = learner.predict(learner.adapt(support), query.inputs).softmax(-1)
    for task, inputs in enumerate(query.inputs):
        examples = [encoder(x) for x in support.inputs[task]]
        for row, x in enumerate(inputs):
            each = torch.stack([similarity(learner, encoder(x), y) for y in examples])
            expected = each.softmax(0) @ support.targets[task]
            torch.testing.assert_close(probabilities[task, row], expected)
    labels = query.targets.argmax(-1)
    taken = probabilities.gather(-1, labels.unsqueeze(-1)).log().mean()
    torch.testing.assert_close(learner(vectors), -taken)


def test_attention_that_is_very_small_keeps_its_gradient():
    similarities = torch.tensor([[[-500.0, 0.0]]], requires_grad=True)
    logits = log_attention(similarities, torch.eye(2).unsqueeze(0))
    torch.testing.assert_close(logits, similarities)
    F.cross_entropy(logits.flatten(0, 1), torch.tensor([0])).backward()
    torch.testing.assert_close(similarities.grad, torch.tensor([[[-1.0, 1.0]]]))


def test_attention_to_soft_labels_and_to_none():
    similarities = torch.tensor([[[0.3, -0.2, 5.0]]], dtype=torch.float64)
    targets = torch.tensor([[[0.25, 0.75, 0.0], [1, 0, 0], [0, 0, 0]]], dtype=torch.float64)
    logits = log_attention(similarities, targets)
    assert logits.isfinite().all()
    expected = similarities[0, 0, :2].softmax(0) @ targets[0, :2]
    torch.testing.assert_close(logits[0, 0].softmax(0), expected)


def test_the_support_context_is_a_bidirectional_lstm():
    torch.manual_seed(0)
    context = SupportContext(5).double()
    both = nn.LSTM(5, 5, batch_first=True, bidirectional=True).double()
    for suffix, cell in (("", context.forwards), ("_reverse", context.backwards)):
        for name, value in cell.named_parameters():
            getattr(
                both, name.replace("_ih", "_ih_l0").replace("_hh", "_hh_l0") + suffix
            ).data = value.data
    embeddings = torch.randn(2, 7, 5, dtype=torch.float64)
    counted = torch.ones(2, 7, dtype=torch.bool)
    read = both(embeddings)[0]
    expected = embeddings + read[..., :5] + read[..., 5:]
    torch.testing.assert_close(context(embeddings, counted), expected)

    counted[1, [0, 3, 6]] = False
    kept = counted[1]
    expected = context(embeddings[1:, kept], counted[1:, kept])
    torch.testing.assert_close(context(embeddings, counted)[1:, kept], expected)


def test_a_query_reads_the_support_set_by_attention():
    torch.manual_seed(0)
    context = QueryContext(5, num_reads=3).double()
    queries = torch.randn(1, 2, 5, dtype=torch.float64)
    support = torch.randn(1, 4, 5, dtype=torch.float64)
    counted = torch.tensor([[True, False, True, True]])
    found = context(queries, support, counted)
    seen = support[0, counted[0]]
    for row, query in enumerate(queries[0]):
        hidden, cell = query, torch.zeros(5, dtype=torch.float64)
        for _ in range(3):
            read = sum(a * g for a, g in zip((seen @ hidden).softmax(0), seen, strict=True))
            gates = context.cell.weight_ih @ torch.cat([query, read]) + context.cell.bias_ih
            gates = gates + context.cell.weight_hh @ hidden + context.cell.bias_hh
            i, f, g, o = gates.chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh() + query
        torch.testing.assert_close(found[0, row], hidden)


def test_in_full_context_the_order_of_the_support_set_matters(
    encoder: nn.Module, vectors: Episodes
):
    torch.manual_seed(0)
    learner = MatchingNet(encoder, full_context=True).double()
    support, query, _ = vectors
    turned = Examples(support.inputs.flip(1), support.targets.flip(1))  # pyright: ignore
    logits = [learner.predict(learner.adapt(each), query.inputs) for each in (support, turned)]
    assert not torch.allclose(*logits)
    with pytest.raises(ValueError, match="num_reads must be at least 1, not 0"):
        MatchingNet(encoder, full_context=True, num_reads=0)


def test_options_of_another_kind_are_refused(encoder: nn.Module):
    with pytest.raises(ValueError, match="A scale is of cosines"):
        MatchingNet(encoder, similarity="euclidean", scale=3.0)
    with pytest.raises(ValueError, match="set full_context=True"):
        MatchingNet(encoder, num_reads=3)


def test_targets_of_padding_may_be_anything(encoder: nn.Module, vectors: Episodes):
    learner = MatchingNet(encoder).double()
    inputs, targets, _ = vectors.support
    padded = Examples(
        F.pad(inputs, (0, 0, 0, 2), value=3.0),  # pyright: ignore
        F.pad(targets, (0, 0, 0, 2), value=torch.nan),
        F.pad(torch.ones(3, 7, dtype=torch.bool), (0, 2)),
    )
    logits = [
        learner.predict(learner.adapt(s), vectors.query.inputs) for s in (vectors.support, padded)
    ]
    torch.testing.assert_close(*logits)


def test_full_context_under_autocast(encoder: nn.Module, vectors: Episodes):
    torch.manual_seed(0)
    learner = MatchingNet(encoder, full_context=True).float()
    episodes = vectors.to("cpu", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert learner(episodes).isfinite()

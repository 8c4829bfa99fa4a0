"""Losses: only labelled, unmasked rows count, and everything stays finite."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kshot.episodes import Examples, one_hot
from kshot.losses import LOSSES, check_examples, cross_entropy, mask_absent, mean_squared_error


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(
    labels=st.lists(st.integers(-1, 3), min_size=1, max_size=6), masked=st.sets(st.integers(0, 5))
)
def test_cross_entropy_is_the_mean_over_labelled_unmasked_rows(labels: list[int], masked: set[int]):
    logits, rows = random(len(labels), 4), torch.tensor(labels)
    mask = torch.tensor([row not in masked for row in range(len(labels))])
    counted = mask & (rows >= 0)
    loss = cross_entropy(logits[None], one_hot(rows, 4, torch.float64)[None], mask[None])
    if counted.any():
        torch.testing.assert_close(loss[0], F.cross_entropy(logits[counted], rows[counted]))
    else:
        assert loss.tolist() == [0.0]


@given(masked=st.sets(st.integers(0, 4)), outputs=st.integers(1, 3))
def test_squared_error_is_the_mean_over_unmasked_entries(masked: set[int], outputs: int):
    predictions, targets = random(5, outputs), random(5, outputs, seed=1)
    targets[0] = 0  # a zero row is a value like any other
    mask = torch.tensor([row not in masked for row in range(5)])
    loss = mean_squared_error(predictions[None], targets[None], mask[None])
    if mask.any():
        torch.testing.assert_close(loss[0], F.mse_loss(predictions[mask], targets[mask]))
    else:
        assert loss.tolist() == [0.0]


def test_soft_labels():
    logits, targets = random(2, 3, 4), random(2, 3, 4, seed=1).softmax(-1)
    for task in range(2):
        expected = F.cross_entropy(logits[task], targets[task])
        torch.testing.assert_close(cross_entropy(logits, targets)[task], expected)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_task_alone_has_the_loss_it_has_in_a_batch(loss):
    predictions, targets = random(4, 5, 3), one_hot(torch.arange(20).view(4, 5) % 3, 3).double()
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) > 0.4
    together = loss(predictions, targets, mask)
    for task in range(4):
        alone = loss(predictions[task], targets[task], mask[task])
        torch.testing.assert_close(alone, together[task])
    torch.testing.assert_close(torch.func.vmap(loss)(predictions, targets, mask), together)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_with_no_row_and_no_column_everything_is_finite(loss, dtype: torch.dtype):
    predictions = random(3, 4, 3).to(dtype).requires_grad_()
    present = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    targets = torch.zeros(3, 4, 3, dtype=dtype)
    targets[0, 0, 1] = targets[1, :, 0] = 1
    mask = torch.tensor([[True] * 4, [False] * 4, [True] * 4])
    masked = mask_absent(predictions, present) if loss.kind == "classification" else predictions
    value = loss(masked, targets, mask)
    assert value.isfinite().all()
    value.sum().backward()
    assert predictions.grad is not None and predictions.grad.isfinite().all()
    assert not predictions.grad[1].any(), "a task in which no row counts teaches nothing"
    if loss.kind == "classification":
        assert not predictions.grad[~present.unsqueeze(1).expand(3, 4, 3)].any()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e300])
def test_what_padding_rows_hold_does_not_matter(loss, garbage: float):
    targets = one_hot(torch.tensor([[0, 1, 0]]), 2, torch.float64)
    mask = torch.tensor([[True, True, False]])
    results = []
    for value in (0.0, garbage):
        predictions = random(1, 3, 2).requires_grad_()
        targets[:, 2] = value
        result = loss(predictions, targets, mask).sum()
        results.append((result.detach(), *torch.autograd.grad(result, predictions)))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second) and first.isfinite().all()


def test_absent_columns_get_no_probability():
    logits = random(2, 3, 4)
    present = torch.tensor([[True, True, True, False], [True, False, True, False]])
    masked = mask_absent(logits, present)
    probabilities = masked.softmax(-1)
    assert masked.isfinite().all() and mask_absent(logits, None) is logits
    assert not probabilities[~present.unsqueeze(1).expand(2, 3, 4)].any()
    expected = logits[1][:, present[1]].softmax(-1)
    torch.testing.assert_close(probabilities[1][:, present[1]], expected)


def test_losses_have_names_and_travel():
    for name, loss in LOSSES.items():
        assert loss.name == name and pickle.loads(pickle.dumps(loss)) == loss


GOOD = Examples(torch.zeros(2, 3, 4), torch.eye(3).expand(2, 3, 3))


def test_good_examples_pass():
    check_examples(GOOD, "classification", "support")
    check_examples(GOOD._replace(targets=torch.full((2, 3, 3), 1 / 3)), "classification", "query")
    check_examples(GOOD._replace(targets=torch.zeros(2, 3, 3)), "classification", "query")
    check_examples(GOOD._replace(targets=torch.randn(2, 3, 1)), "regression", "support")
    tokens = {"tokens": torch.zeros(2, 3, 7, dtype=torch.long), "x": torch.zeros(2, 3)}
    check_examples(GOOD._replace(inputs=tokens), "classification", "support")
    mask = torch.tensor([[True, True, False]] * 2)
    strange = GOOD.targets.clone()
    strange[:, 2] = 7
    check_examples(Examples(GOOD.inputs, strange, mask), "classification", "support")
    check_examples(Examples(GOOD.inputs, strange, mask), "regression", "support")


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (GOOD._replace(inputs=torch.full((2, 3, 4), math.nan)), "regression", "query inputs.*NaN"),
        (GOOD._replace(inputs=torch.full((2, 3, 4), -math.inf)), "regression", "query inputs.*inf"),
        (
            GOOD._replace(inputs={"a": torch.zeros(2, 3), "b": torch.full((2, 3), math.nan)}),
            "classification",
            "query inputs hold NaN or infinite.*drop or repair",
        ),
        (
            GOOD._replace(targets=torch.zeros(3, 3)),
            "classification",
            r"\(3, 3\).*One task is a batch of one",
        ),
        (
            GOOD._replace(targets=torch.zeros(2, 4, 3)),
            "regression",
            r"targets must be \(tasks, n, way\)",
        ),
        (
            GOOD._replace(targets=torch.full((2, 3, 3), 0.5)),
            "classification",
            r"\[0.5, 0.5, 0.5\].*kshot.one_hot",
        ),
        (
            GOOD._replace(targets=torch.tensor([2.0, -1.0, 0.0]).expand(2, 3, 3)),
            "classification",
            "not negative",
        ),
        (
            GOOD._replace(targets=torch.full((2, 3, 3), math.nan)),
            "classification",
            "class probabilities",
        ),
        (GOOD._replace(targets=torch.full((2, 3, 1), math.inf)), "regression", "targets hold NaN"),
        (
            GOOD._replace(mask=torch.ones(2, 4, dtype=torch.bool)),
            "classification",
            r"query mask must be \(tasks, n\) = \(2, 3\).*\(2, 4\)",
        ),
    ],
)
def test_wrong_examples_are_told_what_is_wrong(wrong: Examples, kind: str, message: str):
    with pytest.raises(ValueError, match=message):
        check_examples(wrong, kind, "query")

import pytest
import torch
from torch import nn

from kshot.episodes import Examples, one_hot
from kshot.heads import HEADS, accuracy_estimate, hold_out
from kshot.heads.held_out import HeldOut
from kshot.learners.baselines.nearest_centroid import NearestCentroid


@pytest.fixture
def learner() -> NearestCentroid:
    return NearestCentroid(nn.Identity()).eval()


def clusters(
    way: int, shot: int, spread: float, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    centers = torch.randn(way, 16, generator=random)
    columns = torch.arange(way).repeat_interleave(shot)
    noise = torch.randn(way * shot, 16, generator=random)
    return centers[columns] + spread * noise, columns


def test_each_example_is_predicted_by_a_head_of_the_others_in_its_fold(learner):
    inputs, columns = clusters(3, 4, 1.0)
    found = hold_out(learner, inputs, columns)
    assert found.num_folds == 4 and bool(found.judged.all())
    # One of each class is left out with the first, whichever: one of these was dealt.
    possible = []
    for a in range(4, 8):
        for b in range(8, 12):
            kept = torch.tensor([place not in (0, a, b) for place in range(12)])
            state = learner.adapt(Examples(inputs[kept][None], one_hot(columns[kept], 3)[None]))
            possible.append(learner.predict(state, inputs[:1][None])[0, 0])
    for logits in found.logits[:, 0]:
        assert any(torch.allclose(logits, each, atol=1e-5) for each in possible)


def test_the_only_example_of_a_class_is_not_judged(learner):
    inputs, columns = clusters(3, 3, 0.5)
    keep = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    found = hold_out(learner, inputs[keep], columns[keep])
    assert found.judged.tolist() == [True] * 6 + [False]
    alone = hold_out(learner, inputs[[0, 3, 6]], columns[[0, 3, 6]])
    assert not bool(alone.judged.any()) and alone.temperature == 1
    assert accuracy_estimate(alone, alone) is None


def test_kept_examples_are_always_there_and_never_judged(learner):
    inputs, columns = clusters(3, 2, 0.5)
    kept = torch.tensor([True, False] * 3)
    assert hold_out(learner, inputs, columns, kept=kept).judged.tolist() == [False, True] * 3
    all_kept = torch.ones(6, dtype=torch.bool)
    assert not bool(hold_out(learner, inputs, columns, kept=all_kept).judged.any())


def test_the_only_example_of_a_class_is_judged_beside_a_kept_one(learner):
    inputs, columns = clusters(3, 2, 0.1)
    kept = torch.tensor([True, False] * 3)
    found = hold_out(learner, inputs, columns, kept=kept)
    assert float(found.correct.mean()) == 1


def test_cross_validation_is_the_same_for_the_same_seed(learner):
    inputs, columns = clusters(4, 5, 2.0)
    first, again = (hold_out(learner, inputs, columns, seed=3).logits for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, hold_out(learner, inputs, columns, seed=4).logits)


def test_uneven_classes_are_dealt_to_as_many_folds_as_the_largest_has():
    inputs, columns = clusters(2, 12, 1.0)
    keep = torch.cat([torch.arange(12), torch.tensor([12, 13])])
    found = hold_out(HEADS["ridge"]().eval(), inputs[keep], columns[keep])
    assert found.num_folds == 10 and bool(found.judged.all())


def held_out(share: float, n: int, folds: int) -> HeldOut:
    columns = torch.zeros(n, dtype=torch.long)
    logits = torch.zeros(1, n, 2)
    logits[0, :, 1] = torch.where(torch.arange(n) < round(share * n), -1.0, 1.0)
    return HeldOut(logits, columns, torch.ones(n, dtype=torch.bool), folds)


def test_the_estimate_extrapolates_errors_to_all_examples():
    # Errors a + b / f^2 of .1 and .2 at f = 4/5 and 1/2: b = .1 / (4 - 25/16), .1 - b 9/16 at 1.
    estimate = accuracy_estimate(held_out(0.9, 100, 5), held_out(0.8, 100, 2))
    assert estimate is not None and estimate.value == pytest.approx(0.9 + 0.1 * 9 / 39)
    assert estimate.low < 0.9 < estimate.value < estimate.high
    worse = accuracy_estimate(held_out(0.9, 100, 5), held_out(0.95, 100, 2))
    assert worse is not None and worse.value == pytest.approx(0.9)


def test_the_interval_covers_the_accuracy_on_new_examples(learner):
    hits = 0
    for seed in range(60):
        inputs, columns = clusters(6, 45, 2.2, seed)
        support = torch.arange(len(columns)) % 45 < 5
        x, y = inputs[support], columns[support]
        estimate = accuracy_estimate(hold_out(learner, x, y), hold_out(learner, x, y, most_folds=2))
        state = learner.adapt(Examples(x[None], one_hot(y, 6)[None]))
        predicted = learner.predict(state, inputs[~support][None])[0].argmax(-1)
        truth = float((predicted == columns[~support]).float().mean())
        assert estimate is not None
        hits += estimate.low <= truth <= estimate.high
    assert hits >= 53  # 88 %: 95 % would miss 3 of 60

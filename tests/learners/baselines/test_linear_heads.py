import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from kshot.episodes import Examples, one_hot
from kshot.learners.baselines.linear_heads import LogisticHead, RidgeHead


def clusters(way: int, shot: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    centers = torch.randn(way, 16, generator=random)
    columns = torch.arange(way).repeat_interleave(shot)
    return centers[columns] + spread * torch.randn(way * shot, 16, generator=random), columns


def test_ridge_agrees_with_scikit_learn_and_its_strength_with_leaving_out():
    inputs, columns = clusters(3, 5, 3.0)
    x = F.normalize(inputs.double(), dim=-1)
    y = one_hot(columns, 3).double()
    scale = float((x - x.mean(0)).square().sum(-1).mean())
    strengths = (0.1, 1.0, 10.0)

    def fitted(rows: torch.Tensor, strength: float) -> Ridge:
        return Ridge(alpha=strength * scale).fit(x[rows].numpy(), y[rows].numpy())

    errors = []
    for strength in strengths:
        error = 0.0
        for place in range(15):
            rows = torch.arange(15) != place
            # Leaving one out keeps the strength itself, not its multiple of a changed scale.
            left = fitted(rows, strength).predict(x[[place]].numpy())
            error += float(((left - y[[place]].numpy()) ** 2).sum())
        errors.append(error)
    best = strengths[int(np.argmin(errors))]
    learner = RidgeHead(nn.Identity(), strengths=strengths)
    state = learner.adapt(Examples(inputs.double()[None], y[None]))
    everything = torch.ones(15, dtype=torch.bool)
    expected = fitted(everything, best).predict(x.numpy())
    np.testing.assert_allclose(
        learner.predict(state, inputs.double()[None])[0], expected, atol=1e-9
    )


@pytest.mark.parametrize("repeated", [1, 3])
def test_ridge_is_the_same_from_products_of_examples_and_of_dimensions(repeated):
    """Few examples in many dimensions, some of them copies, or the same in their own span."""
    inputs, columns = clusters(4, 3, 1.0)
    inputs, columns = inputs.double().repeat(repeated, 1), columns.repeat(repeated)
    wide = torch.zeros(len(inputs), 40, dtype=torch.float64)
    wide[:, :16] = inputs
    targets = one_hot(columns, 4).double()[None]
    learner = RidgeHead(nn.Identity())
    narrow = learner.adapt(Examples(inputs[None], targets)).summary
    found = learner.adapt(Examples(wide[None], targets)).summary
    np.testing.assert_allclose(found.weight[:, :16], narrow.weight, atol=1e-9)
    assert not found.weight[:, 16:].any()


def test_one_example_of_each_class_takes_the_strength_nearest_to_one():
    inputs, columns = clusters(4, 1, 0.0)
    support = Examples(inputs[None], one_hot(columns, 4)[None])
    several = RidgeHead(nn.Identity(), strengths=(0.01, 0.8, 50.0)).adapt(support)
    single = RidgeHead(nn.Identity(), strengths=(0.8,)).adapt(support)
    assert torch.equal(several.summary.weight, single.summary.weight)


@pytest.mark.parametrize("strengths", [(), (0.0, 1.0)])
def test_strengths_are_positive(strengths):
    with pytest.raises(ValueError, match="positive strengths"):
        RidgeHead(nn.Identity(), strengths=strengths)


@pytest.mark.parametrize(("way", "shot"), [(3, 4), (3, 8)])
def test_logistic_regression_is_that_of_all_dimensions(way, shot):
    """Also where it is solved within the span of fewer examples than dimensions."""
    inputs, columns = clusters(way, shot, 2.0)
    x = F.normalize(inputs.double(), dim=-1)
    peer = LogisticRegression(C=10.0, tol=1e-8, max_iter=2000).fit(x.numpy(), columns.numpy())
    learner = LogisticHead(nn.Identity())
    state = learner.adapt(Examples(inputs.double()[None], one_hot(columns, way).double()[None]))
    logits = learner.predict(state, inputs.double()[None])[0]
    np.testing.assert_allclose(logits.softmax(-1), peer.predict_proba(x.numpy()), atol=2e-3)


def test_two_classes_have_a_column_each_and_so_half_the_penalty():
    inputs, columns = clusters(2, 5, 2.0)
    x = F.normalize(inputs.double(), dim=-1)
    peer = LogisticRegression(C=20.0, tol=1e-8, max_iter=2000).fit(x.numpy(), columns.numpy())
    learner = LogisticHead(nn.Identity())
    state = learner.adapt(Examples(inputs.double()[None], one_hot(columns, 2).double()[None]))
    logits = learner.predict(state, inputs.double()[None])[0]
    np.testing.assert_allclose(logits.softmax(-1), peer.predict_proba(x.numpy()), atol=2e-3)


def test_a_class_without_examples_has_no_weights():
    inputs, columns = clusters(3, 4, 2.0)
    present = 2 * columns  # of 6 classes
    learner = LogisticHead(nn.Identity())
    some = learner.adapt(Examples(inputs[None], one_hot(present, 6)[None])).summary
    alone = learner.adapt(Examples(inputs[None], one_hot(columns, 3)[None])).summary
    assert torch.equal(some.weight[..., ::2], alone.weight)
    assert torch.equal(some.bias[..., ::2], alone.bias)
    assert not some.weight[..., 1::2].any() and not some.bias[..., 1::2].any()


def test_its_strength_is_positive():
    with pytest.raises(ValueError, match="inverse_strength"):
        LogisticHead(nn.Identity(), inverse_strength=0.0)

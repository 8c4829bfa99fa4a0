import numpy as np
import pytest
import torch

from kshot.evaluation.thresholds import accept_threshold
from kshot.heads import Familiarity, rejection_threshold


def clusters(way: int, shot: int, seed: int, spread: float = 0.6) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    centers = torch.randn(way, 1, 16, generator=random)
    return (centers + spread * torch.randn(way, shot, 16, generator=random)).flatten(0, 1)


def test_familiarity_is_minus_the_distance_to_the_nearest_mean_among_centered_directions():
    support, inputs = clusters(3, 4, 0), clusters(2, 3, 1)
    columns = torch.arange(3).repeat_interleave(4)
    origin = support.mean(0)

    def direction(x: torch.Tensor) -> torch.Tensor:
        return (x - origin) / (x - origin).norm(dim=-1, keepdim=True)

    means = torch.stack([direction(support[columns == column]).mean(0) for column in range(3)])
    expected = [max(-float((x - m).square().sum()) for m in means) / 16 for x in direction(inputs)]
    np.testing.assert_allclose(Familiarity(support, columns)(inputs), expected, rtol=1e-4)


def test_the_chosen_share_of_left_out_classes_passes():
    support, columns = clusters(12, 5, 0), torch.arange(12).repeat_interleave(5)
    rejection = rejection_threshold(support, columns, false_accept=0.1)
    assert rejection is not None
    assert rejection.false_accept == pytest.approx(0.1, abs=1 / 60)
    strict = rejection_threshold(support, columns, false_accept=0.0)
    assert strict is not None and strict.false_accept == 0
    assert strict.threshold > rejection.threshold
    assert strict.false_reject is not None and rejection.false_reject is not None
    assert strict.false_reject >= rejection.false_reject


def test_it_holds_for_classes_that_were_never_seen():
    """Twenty known classes, two hundred unknown ones of the same kind."""
    points = clusters(220, 10, 3).view(220, 10, 16)
    support, columns = points[:20, :5].flatten(0, 1), torch.arange(20).repeat_interleave(5)
    rejection = rejection_threshold(support, columns, false_accept=0.1)
    assert rejection is not None
    unknown = Familiarity(support, columns)(points[20:].flatten(0, 1))
    known = Familiarity(support, columns)(points[:20, 5:].flatten(0, 1))
    assert float((unknown >= rejection.threshold).float().mean()) == pytest.approx(0.1, abs=0.06)
    assert float((known >= rejection.threshold).float().mean()) > 0.8


def test_two_classes_are_too_few():
    assert rejection_threshold(clusters(2, 5, 0), torch.arange(10) // 5, false_accept=0.1) is None


def test_a_class_that_is_left_out_does_not_come_back_as_a_column_of_zeros():
    """Its empty mean, the origin, would be near to everything that is centered."""
    support = 100 + clusters(5, 3, 0)
    rejection = rejection_threshold(support, torch.arange(15) // 3, false_accept=0.0)
    assert rejection is not None and rejection.threshold < -1 / 16


def test_names_are_not_what_has_to_be_rejected():
    support, columns = clusters(6, 4, 0), torch.arange(6).repeat_interleave(4)
    names = torch.randn(6, 16, generator=torch.Generator().manual_seed(9))
    kept = torch.arange(30) >= 24
    found = rejection_threshold(
        torch.cat([support, names]),
        torch.cat([columns, torch.arange(6)]),
        false_accept=0.25,
        kept=kept,
    )
    assert found is not None and found.false_accept == pytest.approx(6 / 24)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_is_between_nothing_and_all(rate):
    with pytest.raises(ValueError, match="false-accept rate"):
        accept_threshold(np.arange(5.0), rate)


def test_a_threshold_lets_pass_what_it_may_and_no_more():
    scores = np.array([0.1, 0.5, 0.5, 0.9])
    for allowed in range(5):
        threshold = accept_threshold(scores, allowed / 4)
        assert (scores >= threshold).sum() <= allowed
    assert accept_threshold(scores, 0.25) == np.nextafter(0.5, 1)
    assert accept_threshold(scores, 1.0) == -np.inf

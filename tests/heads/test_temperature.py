import pytest
import torch

from kshot.heads import calibration_error, fit_temperature


def sampled(temperature: float, n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and classes drawn from their softmax at a temperature."""
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, 5, generator=random)
    columns = (logits / temperature).softmax(-1).multinomial(1, generator=random).squeeze(1)
    return logits, columns


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_classes_were_drawn_at_is_found(temperature):
    found = fit_temperature(*sampled(temperature))
    assert found == pytest.approx(temperature, rel=0.08)


def test_it_scales_with_the_logits():
    logits, columns = sampled(2.0)
    assert fit_temperature(1e-4 * logits, columns) == pytest.approx(
        1e-4 * fit_temperature(logits, columns), rel=1e-3
    )


def test_few_right_predictions_do_not_prove_certainty():
    logits = torch.eye(3).repeat(2, 1)
    columns = torch.arange(3).repeat(2)
    confidence = (logits / fit_temperature(logits, columns)).softmax(-1).max()
    assert 0.8 < float(confidence) < 0.95  # 1 - 1 / (6 + 2)


def test_calibrating_lowers_the_calibration_error():
    logits, columns = sampled(4.0)
    before = calibration_error(logits.softmax(-1), columns)
    after = calibration_error((logits / fit_temperature(logits, columns)).softmax(-1), columns)
    assert before > 0.15 and after < 0.03


def test_the_calibration_error_is_the_gap_within_bins():
    probabilities = torch.tensor([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
    columns = torch.tensor([0, 0, 0, 1, 0, 0, 1, 1])  # right in 3 of 4, and in 2 of 4
    assert calibration_error(probabilities, columns) == pytest.approx((0.15 + 0.1) / 2)


def test_nothing_cannot_be_calibrated():
    with pytest.raises(ValueError, match="at least one"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))

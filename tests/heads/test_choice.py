import pytest
import torch
from torch import nn

from kshot.episodes import Examples, one_hot
from kshot.heads import HEADS, fit_head
from kshot.heads.choice import DEFAULT
from kshot.learners.metric.prototypical import ProtoNet


def clusters(way: int, shot: int, spread: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    centers = torch.randn(way, 1, 8, generator=random)
    points = centers + spread * torch.randn(way, shot, 8, generator=random)
    return points.flatten(0, 1), torch.arange(way).repeat_interleave(shot)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_by_name_is_that_learner_calibrated(name):
    embeddings, columns = clusters(4, 5)
    fitted = fit_head(embeddings, columns, name)
    learner = HEADS[name]().eval()
    state = learner.adapt(Examples(embeddings[None], one_hot(columns, 4)[None]))
    logits = learner.predict(state, embeddings[None])[0] / fitted.chosen.temperature
    torch.testing.assert_close(fitted.logits(embeddings), logits.double(), rtol=1e-4, atol=1e-5)
    assert [candidate.name for candidate in fitted.candidates] == [name]
    assert fitted.chosen.accuracy is not None and fitted.chosen.accuracy.value > 0.9


def test_auto_tries_every_head_and_says_why():
    fitted = fit_head(*clusters(4, 5))
    assert [candidate.name for candidate in fitted.candidates] == [*HEADS]
    assert fitted.chosen in fitted.candidates and fitted.reason


def test_auto_takes_another_head_where_it_is_clearly_better():
    """A few directions of noise outweigh the rest: a strength that the data choose finds out."""
    random = torch.Generator().manual_seed(0)
    embeddings = torch.randn(10, 1, 300, generator=random) + torch.randn(
        10, 5, 300, generator=random
    )
    embeddings[..., :4] = 15 * torch.randn(10, 5, 4, generator=random)
    fitted = fit_head(embeddings.flatten(0, 1), torch.arange(10).repeat_interleave(5))
    losses = {candidate.name: candidate.log_loss for candidate in fitted.candidates}
    assert fitted.chosen.name == "ridge" and "lower than that of logistic" in fitted.reason
    assert losses["ridge"] < losses["logistic"] - 0.1


def test_auto_says_when_there_are_too_few_examples():
    fitted = fit_head(*clusters(4, 1))
    assert fitted.chosen.name == DEFAULT and "too few to choose" in fitted.reason
    assert fitted.chosen.accuracy is None and fitted.chosen.log_loss is None


def test_heads_are_tried_in_coordinates_of_the_span_without_a_difference():
    embeddings, columns = clusters(4, 5)
    wide = nn.functional.pad(embeddings, (0, 100))
    turned = wide @ torch.linalg.qr(torch.randn(108, 108)).Q
    for name in HEADS:
        one, other = (fit_head(each, columns, name).chosen for each in (embeddings, turned))
        assert one.log_loss == pytest.approx(other.log_loss, abs=2e-3), name


def test_a_learner_of_ones_own_is_a_head_too():
    embeddings, columns = clusters(3, 4)
    fitted = fit_head(embeddings, columns, ProtoNet(nn.Linear(8, 5)))
    assert fitted.chosen.name == "ProtoNet" and fitted.logits(embeddings).shape == (12, 3)


def test_an_unknown_head_names_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown head 'rigde'.*ridge"):
        fit_head(*clusters(2, 2), "rigde")

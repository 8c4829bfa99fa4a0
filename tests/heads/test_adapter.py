from dataclasses import replace

import numpy as np
import pytest
import torch

from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.evaluation.evaluate import evaluate, paired_difference
from kshot.heads import HEADS, fit_head, train_adapter
from kshot.heads.adapter import TRAINING, restore_adapter

NOISE = 10


def classes(way: int, shot: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers tell the class; ten others are noise in every class."""
    random = np.random.default_rng(seed)
    told = random.normal(size=(way, 1, 2)) + 0.1 * random.normal(size=(way, shot, 2))
    rows = np.concatenate([told, 0.5 * random.normal(size=(way, shot, NOISE))], axis=2)
    return rows.reshape(way * shot, -1).astype(np.float32), np.repeat(np.arange(way), shot)


@pytest.fixture(scope="module")
def adapter():
    return train_adapter(*classes(40, 12, 0))


def test_it_learns_from_other_classes_what_tells_classes_apart(adapter):
    new = LabelledDataset.from_labels(*classes(40, 12, 1))
    sampler = EpisodeSampler(new, EpisodeConfig(way=5, shot=1, query_shot=5), split="test")
    gain = paired_difference(
        evaluate(adapter, sampler, 200), evaluate(HEADS["cosine"]().eval(), sampler, 200)
    )
    assert gain.mean - gain.half_width > 0.02


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshot.heads.adapter.TRAINING", replace(TRAINING, iterations=10))


def test_it_is_a_function_of_the_seed(short):
    first, again, other = (train_adapter(*classes(40, 12, 0), seed=seed) for seed in (0, 0, 1))
    rows = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.encoder(rows), again.encoder(rows))
    assert not torch.allclose(first.encoder(rows), other.encoder(rows))


def test_it_draws_no_random_numbers_of_others(short):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train_adapter(*classes(5, 3, 0))
    assert torch.equal(torch.rand(2), expected)


def test_its_weights_bring_it_back(adapter):
    rows = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(restore_adapter(adapter.state_dict()).encoder(rows), adapter.encoder(rows))


def test_classes_of_one_example_do_not_count():
    rows, labels = classes(6, 2, 0)
    with pytest.raises(ValueError, match="there are 4"):
        train_adapter(rows[:10], [*labels[:8].tolist(), 90, 91])


def test_auto_tries_it_and_takes_it_where_nothing_can_be_held_out(adapter):
    rows, columns = (torch.from_numpy(part) for part in classes(5, 1, 1))
    fitted = fit_head(rows, columns, adapter=adapter)
    assert [each.name for each in fitted.candidates] == [*HEADS, "adapter"]
    assert fitted.chosen.name == "adapter" and fitted.learner is adapter
    assert fit_head(rows, columns).chosen.name == "logistic"


def test_asking_for_it_needs_one():
    rows, columns = (torch.from_numpy(part) for part in classes(3, 3, 0))
    with pytest.raises(ValueError, match="other labelled classes first"):
        fit_head(rows, columns, "adapter")


def test_a_head_that_would_not_use_it_is_refused(adapter):
    rows, columns = (torch.from_numpy(part) for part in classes(3, 3, 0))
    with pytest.raises(ValueError, match="'ridge' does not use the adapter"):
        fit_head(rows, columns, "ridge", adapter=adapter)

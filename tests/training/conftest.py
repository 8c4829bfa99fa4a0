import numpy as np
import pytest

from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler


@pytest.fixture(scope="session")
def blobs() -> LabelledDataset:
    """Thirty classes of eight noisy pictures of 16 px, easy to tell apart."""
    random = np.random.default_rng(0)
    centers = random.integers(0, 256, (30, 1, 1, 16, 16))
    pictures = (centers + random.normal(0, 40, (30, 8, 1, 16, 16))).clip(0, 255).astype(np.uint8)
    return LabelledDataset.from_labels(pictures.reshape(-1, 1, 16, 16), np.repeat(np.arange(30), 8))


@pytest.fixture
def sampler(blobs) -> EpisodeSampler:
    return EpisodeSampler(blobs, EpisodeConfig(way=5, shot=1, query_shot=3), seed=1, split="train")

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.learners.optimization.update_rules import Params
from kshot.training.problems import quadratics
from kshot.training.unroll import OptimizationProblem


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


@pytest.fixture
def bowls() -> OptimizationProblem:
    """Three quadratics, with losses that grow with the step."""
    problem = quadratics(3, 4, generator=torch.Generator().manual_seed(0))
    matrices = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1)).double() / 2

    def loss(params: Params, step: int) -> Tensor:
        return (matrices @ params["theta"].unsqueeze(-1)).square().sum((1, 2)) * (1 + step)

    return OptimizationProblem({"theta": 100 * problem.init["theta"].double()}, loss)

"""Losses of deep metric learning against the papers' formulas, one example at a time."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples, concatenate
from kshot.learners.metric.embedding_losses import MetricEmbedding

CLASSES = torch.tensor([[4, 0, 7], [2, 7, 9], [1, 4, 3]])
OBJECTIVES = ["contrastive", "triplet", "sphereface", "cosface", "arcface"]


def built(objective: str, **options) -> MetricEmbedding:
    torch.manual_seed(0)
    encoder = MLP((4,), widths=(6,), activation="tanh")
    return MetricEmbedding(encoder, 10, objective=objective, **options).double()  # pyright: ignore


def labelled(learner: MetricEmbedding, episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Embeddings of all examples, and the data set's class of each."""
    both = concatenate(episodes.support, episodes.query)
    labels = CLASSES.gather(1, both.targets.argmax(-1)).flatten()
    return learner.encoder(both.inputs.flatten(0, 1)), labels  # pyright: ignore


@pytest.fixture
def episodes(vectors: Episodes) -> Episodes:
    return vectors._replace(classes=CLASSES)


def test_contrastive_pulls_pairs_together_and_pushes_them_apart(episodes: Episodes):
    learner = built("contrastive", margin=1.5)
    z, labels = labelled(learner, episodes)
    same, different = [], []
    for i in range(len(z)):
        for j in range(i):
            d = (z[i] - z[j]).norm()
            if labels[i] == labels[j]:
                same.append(d**2 / 2)
            else:
                different.append(torch.relu(1.5 - d) ** 2 / 2)
    expected = (torch.stack(same).mean() + torch.stack(different).mean()) / 2
    torch.testing.assert_close(learner(episodes), expected, rtol=1e-6, atol=1e-8)


def test_triplets_are_semi_hard(episodes: Episodes):
    learner = built("triplet", margin=0.3)
    z, labels = labelled(learner, episodes)
    z = F.normalize(z, dim=-1)
    losses = []
    for a in range(len(z)):
        for p in range(len(z)):
            for n in range(len(z)):
                if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
                    near, far = (z[a] - z[p]).square().sum(), (z[a] - z[n]).square().sum()
                    if near < far < near + 0.3:
                        losses.append(near - far + 0.3)
    assert len(losses) > 5
    torch.testing.assert_close(learner(episodes), torch.stack(losses).mean())


def margin_loss(learner: MetricEmbedding, episodes: Episodes, target, others) -> Tensor:
    """Cross-entropy of logits made from the length of an embedding and its angles, one by one."""
    weights, losses = learner.criterion.weight.T, []
    for z, label in zip(*labelled(learner, episodes), strict=True):
        cosine = F.cosine_similarity(z.unsqueeze(1), weights, dim=0)
        logits = others(z.norm(), cosine).clone()
        logits[label] = target(z.norm(), cosine[label])
        losses.append(F.cross_entropy(logits.unsqueeze(0), label.unsqueeze(0)))
    return torch.stack(losses).mean()


def test_cosface_takes_a_margin_from_the_cosine(episodes: Episodes):
    learner = built("cosface", margin=0.3, scale=8.0)
    expected = margin_loss(learner, episodes, lambda norm, c: 8 * (c - 0.3), lambda norm, c: 8 * c)
    torch.testing.assert_close(learner(episodes), expected)


def test_arcface_adds_a_margin_to_the_angle(episodes: Episodes):
    learner = built("arcface", margin=0.7, scale=8.0)

    def target(norm: Tensor, c: Tensor) -> Tensor:
        angle = c.acos()
        if angle <= math.pi - 0.7:
            return 8 * (angle + 0.7).cos()
        return 8 * (c - 0.7 * math.sin(0.7))

    expected = margin_loss(learner, episodes, target, lambda norm, c: 8 * c)
    torch.testing.assert_close(learner(episodes), expected)


def test_sphereface_multiplies_the_angle_as_lambda_falls(episodes: Episodes):
    learner = built("sphereface")
    for iteration in (0, 100, 10**6):
        learner.iterations.fill_(iteration)
        falling = max(5.0, 1000 / (1 + 0.12 * (iteration + 1)))

        def target(norm: Tensor, c: Tensor, falling: float = falling) -> Tensor:
            angle = c.acos()
            k = math.floor(4 * angle.item() / math.pi)
            psi = (-1) ** k * (4 * angle).cos() - 2 * k
            return norm * (c + (psi - c) / (1 + falling))

        expected = margin_loss(learner, episodes, target, lambda norm, c: norm * c)
        torch.testing.assert_close(learner(episodes), expected)


@pytest.mark.parametrize("objective", ["cosface", "arcface"])
def test_a_margin_may_grow(objective: str, episodes: Episodes):
    losses = []
    growing, whole = built(objective, warmup=4), built(objective)
    for _ in range(5):
        losses.append(growing(episodes).item())
    assert losses[0] < losses[1] < losses[2] < losses[3] == losses[4]
    assert losses[4] == whole(episodes).item()
    growing.eval()(episodes)
    assert growing.iterations == 5


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_unlabelled_and_padded_examples_do_not_count(objective: str, episodes: Episodes):
    inputs, targets, _ = episodes.support
    assert isinstance(inputs, Tensor)
    more = Examples(
        torch.cat([inputs, 5 * inputs[:, :2]], 1),
        torch.cat([targets, targets[:, :1], torch.zeros_like(targets[:, :1])], 1),
        F.pad(torch.ones(3, 7, dtype=torch.bool), (0, 2)).index_fill(1, torch.tensor([8]), True),
    )
    losses = [built(objective)(each) for each in (episodes, episodes._replace(support=more))]
    torch.testing.assert_close(*losses)


def test_queries_are_compared_by_angle(episodes: Episodes):
    learner = built("contrastive", test_scale=3.0)
    logits = learner.predict(learner.adapt(episodes.support), episodes.query.inputs)
    z, labels = (
        learner.encoder(episodes.support.inputs[0]),  # pyright: ignore
        episodes.support.targets[0].argmax(-1),
    )
    centers = torch.stack([F.normalize(z[labels == k], dim=-1).mean(0) for k in range(3)])
    q = learner.encoder(episodes.query.inputs[0])  # pyright: ignore
    expected = 3 * F.cosine_similarity(q.unsqueeze(1), centers.unsqueeze(0), dim=-1)
    torch.testing.assert_close(logits[0], expected)


def test_what_is_missing_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, vectors: Episodes):
    with pytest.raises(ValueError, match="episodes need `classes`"):
        built("contrastive")(vectors)
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(ImportError, match="pip install pytorch-metric-learning"):
        built("triplet")
    with pytest.raises(ValueError, match=r"is a whole number, not 3\.5"):
        built("sphereface", margin=3.5)
    with pytest.raises(ValueError, match="are of cosface and arcface, not of triplet"):
        built("triplet", scale=3.0)


@pytest.mark.parametrize("objective", ["sphereface", "cosface", "arcface"])
def test_an_embedding_on_its_weights_has_a_finite_gradient(objective: str):
    criterion = built(objective).criterion
    loss = criterion(3 * criterion.weight.detach(), torch.arange(10), 10**6)
    (gradient,) = torch.autograd.grad(loss, criterion.weight)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("objective", ["cosface", "arcface"])
def test_it_is_what_pytorch_metric_learning_has(objective: str):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    ours = built(objective, scale=8.0).criterion
    theirs = {"cosface": losses.CosFaceLoss, "arcface": losses.ArcFaceLoss}[objective](
        10, 6, scale=8, **({"margin": 0.35} if objective == "cosface" else {})
    )
    theirs.W.data, theirs.margin = ours.weight.data.T, ours.margin
    embeddings = torch.randn(40, 6, dtype=torch.float64)
    labels = torch.arange(40) % 10
    torch.testing.assert_close(ours(embeddings, labels, 1), theirs(embeddings, labels))

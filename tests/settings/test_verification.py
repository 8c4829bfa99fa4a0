"""Verification: trials, error rates against scikit-learn's, and the verifier's answers."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from torch import nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.mlp import MLP
from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.metric.matching import MatchingNet
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.metric.siamese import SiameseNet
from kshot.learners.optimization.ridge import R2D2
from kshot.settings.verification import Trials, Verifier, collect_trials, error_rates
from kshot.settings.verification.rates import roc, threshold_at


def people(count: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around a center for every person, and whose they are."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(count), each)
    centers = random.normal(size=(count, 3))
    return (centers[y] + spread * random.normal(size=(len(y), 3))).astype(np.float32), y


def simulated(num: int = 40, distance: float = 1.5, seed: int = 0) -> Trials:
    """Scores of normal distributions a distance apart, for all pairs of classes."""
    random = np.random.default_rng(seed)
    claimed, actual = (each.ravel() for each in np.meshgrid(np.arange(num), np.arange(num)))
    claimed, actual = np.tile(claimed, 5), np.tile(actual, 5)
    scores = random.normal(size=len(claimed)) + distance * (claimed == actual)
    return Trials(scores, claimed, actual)


# Trials


def test_every_query_is_tried_against_every_enrolled_class():
    X, y = people(6, 5, 0.3)
    sampler = EpisodeSampler(LabelledDataset.from_labels(X, y), EpisodeConfig(4, 2, 3))
    trials = collect_trials(ProtoNet(nn.Identity()), sampler, 7)
    assert len(trials.scores) == 7 * 4 * 12 and trials.genuine.mean() == 1 / 4
    support, query, classes = sampler.sample([3])
    assert classes is not None and isinstance(support.inputs, torch.Tensor)
    scores = trials.scores[3 * 48 : 4 * 48].reshape(12, 4)
    for column in range(4):
        center = support.inputs[0, support.targets[0, :, column] == 1].mean(0)
        expected = -(query.inputs[0] - center).square().sum(-1)  # pyright: ignore
        np.testing.assert_allclose(scores[:, column], expected, rtol=1e-4, atol=1e-5)
    assert trials.claimed[3 * 48 : 3 * 48 + 4].tolist() == classes[0].tolist()


def test_episodes_are_as_precise_as_the_learner_and_nan_is_refused():
    X, y = people(6, 5, 0.3)
    sampler = EpisodeSampler(LabelledDataset.from_labels(X, y), EpisodeConfig(4, 2, 3))
    learner = ProtoNet(MLP((3,), widths=(4,))).double().train()
    learner.encoder.eval()
    assert np.isfinite(collect_trials(learner, sampler, 2).scores).all()
    assert learner.training and not learner.encoder.training, "left as it was"
    matching = MatchingNet(learner.encoder).double()
    assert matching.scale is not None
    matching.scale.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="scores are NaN"):
        collect_trials(matching, sampler, 2)
    learner.encoder.layers[0].weight.data.fill_(torch.nan)  # pyright: ignore
    with pytest.raises(ValueError, match="encoder gives NaN"):
        collect_trials(learner, sampler, 2)


def test_padding_is_tried_nowhere():
    X, y = people(6, 5, 0.3)
    sampler = EpisodeSampler(LabelledDataset.from_labels(X, y), EpisodeConfig((2, 4), (1, 2), 3))
    trials = collect_trials(ProtoNet(nn.Identity()), sampler, 20)
    ways = [int((sampler.sample([i]).classes >= 0).sum()) for i in range(20)]  # pyright: ignore
    assert len(trials.scores) == sum(3 * way * way for way in ways)
    assert min(trials.claimed.min(), trials.actual.min()) >= 0


def test_a_learner_must_score_classes_apart():
    X, y = people(6, 5, 0.3)
    sampler = EpisodeSampler(LabelledDataset.from_labels(X, y), EpisodeConfig(4, 2, 3))
    with pytest.raises(ValueError, match="R2D2 scores a class by what sets it apart"):
        collect_trials(R2D2(nn.Identity()), sampler)
    with pytest.raises(ValueError, match="cannot verify"):
        Verifier(MatchingNet(MLP((3,)), full_context=True))
    with pytest.raises(ValueError, match="verification needs batch_norm='running'"):
        Verifier(ProtoNet(Conv4((1, 16, 16)), batch_norm="batch"))


# Rates


def test_the_curve_is_that_of_scikit_learn():
    trials = simulated()
    trials.scores[:400] = trials.scores[:400].round(1)  # ties
    false, true = roc(trials)
    theirs = roc_curve(trials.genuine, trials.scores, drop_intermediate=False)
    np.testing.assert_allclose(false, theirs[0])
    np.testing.assert_allclose(true, theirs[1])


def test_rates_of_two_normal_distributions():
    """A distance d apart, errors are equal at a threshold d / 2: the normal tail there."""
    rates = error_rates(simulated(num=120), resamplings=20)
    assert rates.equal_error_rate.value == pytest.approx(0.2266, abs=0.02)
    assert rates.true_accepts[0.1].value == pytest.approx(0.5862, abs=0.05)
    assert (rates.num_classes, rates.num_trials) == (120, 5 * 120**2)
    assert "0.2" in str(rates.equal_error_rate) and "[" in str(rates.equal_error_rate)


def test_perfect_and_useless_scores():
    perfect = simulated(distance=100.0)
    assert error_rates(perfect, resamplings=5).equal_error_rate == (0, 0, 0)
    same = Trials(np.zeros(4), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert error_rates(same, resamplings=5).equal_error_rate.value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="two classes or more"):
        error_rates(Trials(np.zeros(3), np.zeros(3), np.zeros(3)))


def test_two_classes_of_noise_have_no_sure_rate():
    """Half of the resamplings of two classes have no false claim: they tell nothing."""
    random = np.random.default_rng(0)
    claimed, actual = np.tile([0, 0, 1, 1], 50), np.tile([0, 1, 0, 1], 50)
    rate = error_rates(Trials(random.normal(size=200), claimed, actual)).equal_error_rate
    assert 0.3 < rate.low <= rate.value <= rate.high < 0.7


def test_the_interval_holds_the_truth_nearly_always():
    """Of claims that share their class's own difficulty, which plain counting would not see."""
    truth, held = [], 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        trials = simulated(num=30, distance=0.0, seed=seed)
        ease = 1.5 + random.normal(size=30)
        scores = trials.scores + ease[trials.claimed] * trials.genuine
        rates = error_rates(Trials(scores, trials.claimed, trials.actual), resamplings=60)
        truth.append(rates)
    center = np.mean([rates.equal_error_rate.value for rates in truth])
    held = sum(r.equal_error_rate.low <= center <= r.equal_error_rate.high for r in truth)
    assert 50 <= held <= 60
    widths = [r.equal_error_rate.high - r.equal_error_rate.low for r in truth]
    spread = np.std([r.equal_error_rate.value for r in truth])
    assert 0.6 < np.mean(widths) / (2 * 1.96 * spread) < 1.6


def test_the_threshold_keeps_false_accepts_below_a_rate():
    trials = simulated()
    for rate in (0.0, 0.001, 0.05, 1.0):
        accepted = trials.scores >= threshold_at(trials, rate)
        assert accepted[~trials.genuine].mean() <= rate
    assert (trials.scores >= threshold_at(trials, 0.05))[~trials.genuine].mean() > 0.045
    with pytest.raises(ValueError, match=r"between 0 and 1, not 2\.0"):
        threshold_at(trials, 2.0)


# The verifier


@pytest.fixture
def verifier() -> Verifier:
    X, y = people(4, 6, 0.2, seed=1)
    return Verifier(NearestCentroid(nn.Flatten()).double()).calibrate(X, y, false_accept=0.05)


def test_it_accepts_and_rejects_and_identifies(verifier: Verifier):
    X, y = people(3, 8, 0.1, seed=2)
    for name in range(3):
        verifier.enroll(f"person {name}", X[y == name][:2])
    rest = [(x, f"person {name}") for x, name in zip(X, y, strict=True)]
    assert all(verifier.verify(name, x).accepted for x, name in rest)
    others = [verifier.verify("person 0", x) for x, name in rest if name != "person 0"]
    assert sum(each.accepted for each in others) <= len(others) // 4
    assert all(verifier.identify(x).identity == name for x, name in rest)
    stranger = verifier.identify(np.full(3, 50.0))
    assert stranger.identity is None and stranger.score < verifier.threshold  # pyright: ignore


def test_enrolling_one_changes_nothing_for_the_others(verifier: Verifier):
    X, _ = people(1, 4, 0.1, seed=3)
    verifier.enroll("ann", X)
    before = verifier.scores("ann", X)
    verifier.enroll("bob", X + 3)
    assert (verifier.scores("ann", X) == before).all()
    verifier.enroll("ann", X + 1)
    assert (verifier.scores("ann", X) != before).all(), "enrolled anew, not beside"
    assert verifier.remove("bob").states.keys() == {"ann"}


def test_scores_of_a_siamese_network_are_those_of_pairs():
    torch.manual_seed(0)
    learner = SiameseNet(MLP((3,), widths=(8,))).double()
    X, _ = people(1, 3, 1.0)
    scores = Verifier(learner, threshold=0.0).enroll("ann", X[:2]).scores("ann", X[2:])
    embeddings = learner.encoder(torch.from_numpy(X).double()).unsqueeze(0)
    embeddings = learner.compared(embeddings)
    expected = learner.pair_logits(embeddings[:, 2:], embeddings[:, :2]).max().item()
    assert scores.tolist() == [pytest.approx(expected)]


def test_bad_calls_say_what_is_wrong():
    verifier = Verifier(NearestCentroid(nn.Flatten()))
    X, y = people(2, 2, 0.1)
    with pytest.raises(ValueError, match="There is no threshold yet"):
        verifier.enroll("ann", X).verify("ann", X[0])
    with pytest.raises(KeyError, match="'bob' is not enrolled; 1 are"):
        verifier.scores("bob", X)
    with pytest.raises(ValueError, match=r"at least one, of finite numbers; these are \(0, 3\)"):
        verifier.enroll("bob", X[:0])
    with pytest.raises(ValueError, match="One example alone is X"):
        verifier.enroll("bob", X[0])
    with pytest.raises(ValueError, match="y must tell whose each of the 4 examples is"):
        verifier.calibrate(X, y[:3])
    with pytest.raises(ValueError, match="more than 2 of one"):
        verifier.calibrate(X, y, shot=2)
    with pytest.raises(ValueError, match="Nobody is enrolled yet"):
        Verifier(NearestCentroid(nn.Flatten()), threshold=0.0).identify(X[0])
    with pytest.raises(TypeError, match="Linear"):
        Verifier(nn.Linear(2, 2), threshold=0.0)  # pyright: ignore

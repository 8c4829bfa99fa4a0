import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from kshot.backbones.heads import WithHead
from kshot.backbones.mlp import MLP
from kshot.config import Choice, EpisodeConfig
from kshot.data.sources.sinusoid import sinusoid
from kshot.episodes import Examples, one_hot
from kshot.estimator import FewShotClassifier, FewShotRegressor
from kshot.learner import MetaLearner
from kshot.learners.baselines import NearestCentroid
from kshot.learners.metric import ProtoNet
from kshot.learners.optimization import MAML
from kshot.learners.registry import LEARNERS, TaskShape, build_learner
from kshot.losses import cross_entropy, mean_squared_error
from kshot.options import unwrapped

PICTURE = (1, 16, 16)
POLICIES = ("running", "batch", "support", "support_and_query")
NAMES = np.array(["cat", "dog", "eel"])
CLASSIFIERS = [name for name, row in LEARNERS.items() if "classification" in row.kinds]


class Ridge(MetaLearner):
    """Linear regression in closed form, of inputs of any size: what scikit-learn's checks need."""

    def __init__(self):
        super().__init__(loss=mean_squared_error)

    def adapt(self, support):
        x, y = support.inputs, support.targets
        mean_x, mean_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
        x, y = x - mean_x, y - mean_y
        gram = x.mT @ x + 1e-3 * torch.eye(x.shape[-1], dtype=x.dtype)
        slope = torch.linalg.solve(gram, x.mT @ y)
        return slope, mean_y - mean_x @ slope

    def predict(self, state, inputs, mask=None):
        return inputs @ state[0] + state[1]


class Crowd(MetaLearner):
    """Transductive, BatchNorm aside: logits are inputs less the mean of those in the call."""

    @property
    def transductive(self):
        return True

    def adapt(self, support):
        return (support.targets,)

    def predict(self, state, inputs, mask=None):
        return inputs - inputs.mean(1, keepdim=True)


class Exploding(Crowd):
    def predict(self, state, inputs, mask=None):
        return inputs / 0 - inputs / 0


def pictures(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise in [0, 1] in one of three brightnesses, and the labels, all three among the first."""
    random = np.random.default_rng(seed)
    columns = np.r_[0, 1, 2, random.integers(0, 3, n - 3)] if n > 3 else np.arange(n)
    X = 0.5 * random.random((n, *PICTURE)) + columns[:, None, None, None] / 4
    return X.astype(np.float32), NAMES[columns]


def picture_learner(name: str, policy: str | None = None) -> MetaLearner:
    torch.manual_seed(0)
    tasks = TaskShape(PICTURE, way=5, num_classes=10, kind="classification")
    learner = build_learner(Choice(name), Choice("conv4", {"hidden": 8}), tasks)
    if policy is not None and learner.batch_norm != "none":
        learner.batch_norm = policy
    return learner


def protonet(*, batch_norm: str = "running") -> MetaLearner:
    return picture_learner("protonet", batch_norm)


def blobs(n: int = 30, shape: tuple[int, ...] = (4,)) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    columns = np.arange(n) % 3
    return random.normal(size=(n, *shape)) + 3 * columns.reshape(n, *(1 for _ in shape)), columns


# scikit-learn's contract


@pytest.mark.usefixtures("unchecked_shapes")  # the constructor must take any nonsense
@parametrize_with_checks([FewShotClassifier(), FewShotRegressor(Ridge())])
def test_scikit_learns_checks(estimator, check):
    check(estimator)  # none is expected to fail


def test_serves_a_pipeline():
    X, y = blobs()
    pipeline = make_pipeline(StandardScaler(), FewShotClassifier(ProtoNet(MLP((4,)))))
    assert pipeline.fit(X, y).score(X, y) > 0.9


def test_serves_cross_validation():
    X, y = blobs()
    assert cross_val_score(FewShotClassifier(), X, y, cv=3).mean() > 0.9
    X, _ = pictures(30)
    y = X.mean((1, 2, 3))
    scores = cross_val_score(FewShotRegressor(Ridge()), X.reshape(30, -1), y, cv=3)
    assert scores.min() > 0.9


def test_serves_a_grid_search_over_learners():
    class Blind(nn.Module):
        def forward(self, inputs):
            return torch.zeros_like(inputs.flatten(1))

    X, y = blobs(shape=(2, 2))
    learners = [NearestCentroid(Blind()), NearestCentroid(nn.Flatten()), ProtoNet(MLP((2, 2)))]
    search = GridSearchCV(FewShotClassifier(), {"learner": learners}, cv=3).fit(X, y)
    assert search.best_score_ > 0.9
    assert search.cv_results_["rank_test_score"][0] == 3
    assert search.predict(X).shape == y.shape


def test_a_clone_has_the_same_learner_and_no_state():
    X, y = pictures(9)
    fitted = FewShotClassifier(protonet(), batch_size=7).fit(X, y)
    fresh = clone(fitted)
    assert fresh.batch_size == 7 and not hasattr(fresh, "state_")
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    np.testing.assert_array_equal(fresh.fit(X, y).predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_pickles(name: str):
    X, y = pictures(9)
    fitted = FewShotClassifier(picture_learner(name, "support_and_query")).fit(X, y)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


# What is predicted


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predicts_what_the_learner_predicts(name: str):
    X, y = pictures(9)
    learner = picture_learner(name, "support").eval()
    support = Examples(
        torch.from_numpy(X)[None], one_hot(torch.from_numpy(np.searchsorted(NAMES, y))[None], 3)
    )
    if learner.online:  # examples of a class do not come together
        order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
        support = Examples(support.inputs[:, order], support.targets[:, order])
    queries, _ = pictures(6, seed=1)
    with torch.no_grad():
        logits = learner.predict(learner.adapt(support), torch.from_numpy(queries)[None])[0]
    classifier = FewShotClassifier(learner).fit(X, y)
    probabilities = classifier.predict_proba(queries)
    np.testing.assert_allclose(probabilities, logits.double().softmax(-1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_array_equal(classifier.predict(queries), NAMES[logits.argmax(-1)])


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        (name, policy)
        for name in CLASSIFIERS
        for policy in POLICIES
        if policy in unwrapped(LEARNERS[name].constructor).batch_norm_policies  # pyright: ignore
        and (name, policy) != ("relation", "batch")  # refused: it has no policy to take instead
    ],
)
def test_a_prediction_does_not_depend_on_the_others_in_the_call(name: str, policy: str):
    learner = picture_learner(name, policy)
    X, y = pictures(9)
    if learner.transductive:
        with pytest.warns(UserWarning, match="support_and_query"):
            classifier = FewShotClassifier(learner).fit(X, y)
    else:
        classifier = FewShotClassifier(learner).fit(X, y)
    expected = "support_and_query" if learner.transductive else learner.batch_norm
    assert classifier.learner_.batch_norm == expected
    queries, _ = pictures(10, seed=1)
    others = queries.copy()
    others[1:] = 1 - 0.5 * others[1:]
    together = classifier.predict_proba(queries)
    np.testing.assert_allclose(classifier.predict_proba(others)[0], together[0], atol=1e-5)
    np.testing.assert_allclose(classifier.predict_proba(queries[:1])[0], together[0], atol=1e-5)
    for size in (1, 3, 10):
        parts = classifier.set_params(batch_size=size).predict_proba(queries)
        np.testing.assert_allclose(parts, together, atol=1e-5)


def test_that_dependence_would_show():
    X, _ = pictures(9)
    learner = picture_learner("maml", "batch").eval()
    state = learner.adapt(Examples(torch.from_numpy(X)[None], torch.eye(3).repeat(1, 3, 1)))
    queries = torch.from_numpy(pictures(10, seed=1)[0])[None]
    together, alone = (learner.predict(state, part)[0, 0] for part in (queries, queries[:, :1]))
    assert (together.softmax(-1) - alone.softmax(-1)).abs().max() > 1e-3


def test_a_learner_that_looks_at_all_queries_is_shown_one_at_a_time():
    X, y = blobs(shape=(3,))
    classifier = FewShotClassifier(Crowd()).fit(X, y)
    np.testing.assert_allclose(classifier.predict_proba(X), 1 / 3)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_learner_stays_as_it_is(policy: str):
    learner = picture_learner("maml", policy).train()
    before = copy.deepcopy(learner.state_dict())
    X, y = pictures(9)
    if policy == "batch":
        with pytest.warns(UserWarning, match="support_and_query"):
            classifier = FewShotClassifier(learner).fit(X, y)
    else:
        classifier = FewShotClassifier(learner).fit(X, y)
    classifier.predict(X)
    assert classifier.learner is learner
    assert learner.batch_norm == policy
    assert all(module.training for module in learner.modules())
    for key, value in learner.state_dict().items():
        assert torch.equal(value, before[key])


def test_users_of_one_learner_do_not_disturb_each_other():
    learner = protonet()
    X, y = pictures(9)
    first = FewShotClassifier(learner).fit(X, y)
    before = first.predict_proba(X)
    second = FewShotClassifier(learner).fit(X[::-1], np.roll(y, 1))
    second.predict_proba(X)
    np.testing.assert_array_equal(first.predict_proba(X), before)


def test_training_the_learner_further_changes_nothing_before_the_next_fit():
    learner = protonet()
    X, y = pictures(9)
    classifier = FewShotClassifier(learner).fit(X, y)
    before = classifier.predict_proba(X)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.1
    np.testing.assert_array_equal(classifier.predict_proba(X), before)
    assert not np.allclose(classifier.fit(X, y).predict_proba(X), before)


def test_is_in_evaluation_mode():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Dropout(0.5), MLP((4,)))
    X, y = blobs()
    classifier = FewShotClassifier(ProtoNet(encoder).train()).fit(X, y)
    np.testing.assert_array_equal(classifier.predict_proba(X), classifier.predict_proba(X))


# Inputs and labels


def test_numpy_torch_and_pictures_of_bytes_give_the_same():
    X, y = pictures(9)
    X8 = np.round(255 * X.clip(0, 1)).astype(np.uint8)
    X = X8 / np.float32(255)
    classifier = FewShotClassifier(protonet()).fit(X8, y)
    expected = classifier.predict_proba(X8)
    columns = torch.from_numpy(np.searchsorted(NAMES, y))
    for inputs in (X, torch.from_numpy(X), torch.from_numpy(X8), X.astype(np.float64), X.tolist()):
        np.testing.assert_allclose(classifier.predict_proba(inputs), expected, atol=1e-6)
        other = FewShotClassifier(protonet()).fit(inputs, columns)
        np.testing.assert_allclose(other.predict_proba(inputs), expected, atol=1e-6)
        assert other.classes_.tolist() == [0, 1, 2]
    assert classifier.score(torch.from_numpy(X), y) == classifier.score(X8, y.tolist())
    assert other.score(X, columns) == classifier.score(X8, y)


def test_takes_views_that_torch_cannot():
    X, y = pictures(9)
    X.setflags(write=False)
    expected = FewShotClassifier(protonet()).fit(X.copy(), y).predict_proba(X.copy())
    classifier = FewShotClassifier(protonet()).fit(X[::-1], y[::-1])
    swapped = X[::-1].astype(X.dtype.newbyteorder())
    np.testing.assert_allclose(classifier.predict_proba(swapped)[::-1], expected, atol=1e-5)
    flat, values = X.reshape(9, -1), X.mean((1, 2, 3))
    regressor = FewShotRegressor(Ridge()).fit(flat[::-1], values[::-1])
    np.testing.assert_allclose(regressor.predict(flat), values, atol=1e-2)
    tensor = torch.from_numpy(X.copy()).requires_grad_()
    np.testing.assert_allclose(classifier.predict_proba(tensor), expected, atol=1e-5)


@pytest.mark.parametrize("labels", [["b", "a", "c"], [7, -1, 3], [True, False], [2.0, 1.0]])
def test_any_labels(labels: list):
    X, _ = pictures(len(labels))
    classifier = FewShotClassifier(protonet()).fit(X, labels)
    assert classifier.classes_.tolist() == sorted(labels)
    assert classifier.predict(X).tolist() == labels
    assert classifier.score(X, labels) == 1


def test_computes_in_the_precision_of_the_learner():
    X, y = blobs()
    classifier = FewShotClassifier(ProtoNet(MLP((4,))).double()).fit(X.astype(np.float32), y)
    assert classifier.state_.summary.dtype == torch.float64
    assert classifier.predict_proba(X.astype(np.float32)).dtype == np.float64


# Errors


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (pictures(9)[0], ["cat"] * 9, "at least 2 classes, but y has 1 class: 'cat'"),
        (pictures(9)[0], pictures(8)[1], "inconsistent numbers of samples"),
        (np.full((3, *PICTURE), np.nan), NAMES, "X contains NaN"),
        (pictures(9)[0], np.arange(9) % 6, "at least 6"),
        (
            pictures(9)[0].transpose(0, 2, 3, 1),
            pictures(9)[1],
            r"\(n, 1, height, width\), .* but X",
        ),
        (pictures(9)[0][:, 0], pictures(9)[1], r"X\[:, None\] adds the channel"),
        (np.zeros((9, 1, 32, 32)), pictures(9)[1], r"X is \(9, 1, 32, 32\)"),
        (pictures(9)[0], np.linspace(0, 1, 9), "Unknown label type"),
        ([f"{k}.png" for k in range(9)], NAMES, r"such as '0\.png', .* Give an encoder"),
        ([Path("a.png")] * 9, NAMES, r"a\.png.*kshot\.data\.pictures\.prepare_picture"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")  # it is the network that refuses
def test_what_cannot_be_learned_is_refused(X: Any, y: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(picture_learner("maml", "support")).fit(X, y)


def test_a_wrong_number_of_features_is_refused():
    X, y = blobs()
    with pytest.raises(ValueError, match=r"takes inputs of 5 numbers each, but X is \(30, 4\)"):
        FewShotClassifier(ProtoNet(MLP((5,)))).fit(X, y)


@pytest.mark.parametrize("shape", [(2, 1, 16, 15), (2, 3, 16, 16), PICTURE, (2, 256)])
def test_other_shapes_than_in_fit_are_refused(shape: tuple[int, ...]):
    classifier = FewShotClassifier().fit(*pictures(9))
    with pytest.raises(ValueError, match=r"X must be \(n, 1, 16, 16\) as in fit, but it is "):
        classifier.predict(np.zeros(shape))


def test_a_learner_of_another_kind_is_refused():
    X, y = blobs()
    with pytest.raises(ValueError, match="learner of classification, but the loss of this Ridge"):
        FewShotClassifier(Ridge()).fit(X, y)
    with pytest.raises(ValueError, match=r"learner of regression, but .* cross_entropy"):
        FewShotRegressor(ProtoNet(nn.Flatten())).fit(X, y)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("learner", [nn.Linear(4, 3), "protonet", ProtoNet])
def test_what_is_no_learner_is_refused(learner):
    X, y = blobs()
    for estimator in (FewShotClassifier(learner), FewShotRegressor(learner)):
        with pytest.raises(TypeError, match="needs a kshot learner, not"):
            estimator.fit(X, y)


def test_a_batch_of_none_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        FewShotClassifier(batch_size=0).fit(*blobs())


def test_predictions_that_are_not_numbers_are_refused():
    X, y = blobs(shape=(3,))
    with pytest.raises(ValueError, match="not finite, so its adaptation diverged"):
        FewShotClassifier(Exploding(loss=cross_entropy)).fit(X, y).predict(X)


def test_needs_fit_first():
    with pytest.raises(NotFittedError):
        FewShotClassifier().predict_proba(np.zeros((2, 4)))
    with pytest.raises(NotFittedError):
        FewShotRegressor(Ridge()).predict(np.zeros((2, 4)))


# Regression


def sinusoid_learner(num_outputs: int = 1) -> MetaLearner:
    torch.manual_seed(0)
    net = WithHead(MLP((1,)), num_outputs)
    return MAML(net, inner_lr=0.02, num_inner_steps=100, loss=mean_squared_error)


def test_regression_on_a_sinusoid():
    sampler = sinusoid().sampler("test", EpisodeConfig(shot=10, query_shot=20), seed=0)
    episodes = sampler.sample([3])
    learner = sinusoid_learner().eval()
    regressor = FewShotRegressor(learner, batch_size=7)
    regressor.fit(episodes.support.inputs[0], episodes.support.targets[0, :, 0])
    values = regressor.predict(episodes.query.inputs[0])
    with torch.no_grad():
        expected = learner.predict(learner.adapt(episodes.support), episodes.query.inputs)
    assert values.shape == (20,)
    np.testing.assert_allclose(values, expected[0, :, 0], rtol=1e-5, atol=1e-6)
    support = episodes.support.inputs[0], episodes.support.targets[0, :, 0]
    assert regressor.score(*support) > 0.5
    learner.num_test_steps = 0
    assert FewShotRegressor(learner).fit(*support).score(*support) < 0.1


def test_regression_has_as_many_dimensions_as_its_values():
    X = np.linspace(-1, 1, 10)[:, None]
    for y in (X[:, 0], X, np.c_[X, -X]):
        regressor = FewShotRegressor(sinusoid_learner(num_outputs=2)).fit(X, y)
        assert regressor.predict(X[:4]).shape == (4, *y.shape[1:])
    with pytest.raises(ValueError, match="at least 3"):
        regressor.fit(X, np.c_[X, X, X])


def test_regression_refuses_what_is_no_number():
    X = np.linspace(-1, 1, 10)[:, None]
    with pytest.raises(ValueError, match="y contains NaN"):
        FewShotRegressor(Ridge()).fit(X, np.full(10, np.nan))

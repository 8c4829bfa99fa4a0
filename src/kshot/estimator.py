"""scikit-learn's estimators around a trained learner: fit on a few examples, predict any others."""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from kshot.encoders import Encoder, load_encoder
from kshot.episodes import Examples, one_hot
from kshot.learner import MetaLearner
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.predictor import Predictor
from kshot.user_examples import (
    as_array,
    as_inputs,
    as_numbers,
    checked_learner,
    inductive,
    place_of,
    refusals,
)

__all__ = ["FewShotClassifier", "FewShotRegressor"]


class _FewShotEstimator(BaseEstimator):
    """What both estimators do: adapt a copy of the learner to one task, ask it in batches."""

    def __init__(self, learner: MetaLearner | None, batch_size: int) -> None:
        self.learner = learner
        self.batch_size = batch_size

    def _validate(self, learner: MetaLearner, X: Any, **options: Any) -> Any:
        """X, and y where it is given, as arrays of finite numbers; pictures of uint8 stay so."""
        exact = place_of(learner)[1] == torch.float64
        dtypes = [np.float64 if exact else np.float32, np.uint8]
        return validate_data(self, as_numbers(X), dtype=dtypes, allow_nd=True, **options)

    def _adapt(self, learner: MetaLearner, X: np.ndarray, targets: Tensor) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size!r}.")
        # A copy, so that neither its mode and policy here nor later training there reach the other.
        learner = inductive(copy.deepcopy(learner).eval())
        device, dtype = place_of(learner)
        if learner.online:  # it reads in order, and learned to from orders that tell nothing
            order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
            X, targets = X[order.numpy()], targets[order]
        support = Examples(as_inputs(X, learner), targets.to(device, dtype).unsqueeze(0))
        with torch.no_grad(), refusals(learner, X):
            state = learner.adapt(support)
        self.learner_, self.state_, self.input_shape_ = learner, state, X.shape[1:]

    def _predictions(self, X: Any) -> Float[Tensor, "n way"]:
        """The learner's logits or values for the examples, in double precision on the CPU."""
        check_is_fitted(self, "state_")
        learner, expected = self.learner_, self.input_shape_
        # scikit-learn would count the features of pictures along their channels.
        X = self._validate(learner, X, reset=False, ensure_2d=len(expected) == 1)
        if X.shape[1:] != expected:
            raise ValueError(
                f"X must be (n, {', '.join(map(str, expected))}) as in fit, but it is {X.shape}. "
                "One example alone is X[None]."
            )
        # A learner that looks at queries together is shown one at a time.
        size = 1 if learner.transductive else self.batch_size
        parts = []
        for start in range(0, len(X), size):
            inputs = as_inputs(X[start : start + size], learner)
            with torch.no_grad(), refusals(learner, X):
                parts.append(learner.predict(self.state_, inputs)[0].cpu().double())
        predictions = torch.cat(parts)
        if not bool(predictions.isfinite().all()):
            raise ValueError(
                "The learner's predictions are not finite, so its adaptation diverged on these "
                "examples. Give X and y the scale they had in training (pictures: uint8, or "
                "floating numbers in [0, 1]), or lower the learner's inner learning rate."
            )
        return predictions


class FewShotClassifier(ClassifierMixin, _FewShotEstimator):
    """A trained learner, or a head on a frozen encoder, as a scikit-learn classifier.

    `fit` shows the learner a few labelled examples, all as one support set; the learner itself
    stays as it is. What is predicted for one example never depends on the others in the call: a
    learner whose BatchNorm policy is "batch" is asked under "support_and_query", with a warning.

    With an encoder or a head it is a `Predictor` in scikit-learn's clothes: X may then be what the
    encoder reads (pictures as paths, PIL images or arrays; sentences), and probabilities are
    calibrated by cross-validation.

    Args:
        learner: a trained classification learner; None compares examples as they are with the mean
            of every class (`NearestCentroid` on flattened inputs), the baseline.
        encoder: in place of a learner: an `Encoder`, or its name as `load_encoder` takes it.
        head: in place of a learner: a name of `kshot.HEADS`, "auto", or a learner over embeddings;
            None means "auto" where there is an encoder. Without one, X are embeddings.
        false_accept: with a head: the share of unknown inputs that `known` may let pass.
        use_names: with an encoder that understands text: let the name of each class be one more
            example of it.
        batch_size: examples predicted at once, which bounds memory; results depend on it by no
            more than rounding.

    Attributes:
        classes_: the labels, sorted.
        predictor_: with a head, the `Predictor`; its `head` tells how good it will be.
        state_: what the learner learned from them: its adapted state, a batch of one task.
        learner_: the copy of the learner that predicts, in evaluation mode.
        input_shape_: shape of one example.
        n_features_in_: size of its first dimension.

    Raises:
        TypeError: in `fit`, when `learner` is no learner.
        ValueError: in `fit`, for one class only, for more classes or other shapes than the
            learner's network takes, for NaN, for a learner of regression, and for a learner beside
            an encoder or a head; in `predict`, for other shapes than in `fit`, and when the
            adaptation diverged.
        sklearn.exceptions.NotFittedError: in `predict`, before `fit`.

    Example:
        >>> X = np.array([[0.0, 0.1], [0.1, 0.0], [1.0, 0.9]])
        >>> classifier = FewShotClassifier().fit(X, ["cat", "cat", "dog"])
        >>> print(*classifier.predict([[0.0, 0.0], [0.8, 1.0]]))
        cat dog

    Note:
        X is (n, *shape) with the shape that the learner's network takes, pictures (n, channels,
        height, width). Arrays of uint8 are divided by 255, all others are taken as they are.
        `check_estimator` passes with every check, on the default learner; `sample_weight` is not
        supported. The fitted estimator holds a copy of the learner's weights: train the learner
        further and nothing changes before the next `fit`. A learner that reads in order is shown
        the examples in a random order, always the same one.
    """

    def __init__(
        self,
        learner: MetaLearner | None = None,
        *,
        encoder: Encoder | str | None = None,
        head: MetaLearner | str | None = None,
        false_accept: float = 0.05,
        use_names: bool = False,
        batch_size: int = 128,
    ) -> None:
        super().__init__(learner, batch_size)
        self.encoder = encoder
        self.head = head
        self.false_accept = false_accept
        self.use_names = use_names

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":
        """Adapt to examples X (n, *shape) of classes y (n,), labels of any kind."""
        if self.encoder is not None or self.head is not None:
            return self._fit_head(X, y)
        vars(self).pop("predictor_", None)  # of an earlier fit with a head
        default = NearestCentroid(nn.Flatten()) if self.learner is None else self.learner
        learner = checked_learner(default, "classification", type(self).__name__)
        X, y = self._validate(learner, X, y=as_array(y))
        check_classification_targets(y)
        classes, columns = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} needs examples of at least 2 classes, but y has 1 class: "
                f"{classes.tolist()[0]!r}."
            )
        self._adapt(learner, X, one_hot(torch.from_numpy(columns), len(classes)))
        self.classes_ = classes
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each example of X (n, *shape)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _fit_head(self, X: Any, y: Any) -> "FewShotClassifier":
        if self.learner is not None:
            raise ValueError(
                "Give a trained learner, which reads X itself, or an encoder and a head, not both."
            )
        encoder = None if self.encoder is None else load_encoder(self.encoder)
        if encoder is None:  # embeddings: scikit-learn checks them and remembers their size
            X = validate_data(self, as_numbers(X), dtype=np.float32)
        y = np.asarray(as_array(y))
        check_classification_targets(y)
        self.predictor_ = Predictor.fit(
            X,
            y,
            encoder=encoder,
            head="auto" if self.head is None else self.head,
            false_accept=self.false_accept,
            use_names=self.use_names,
        )
        self.classes_ = np.unique(y)
        return self

    def known(self, X: Any) -> Bool[np.ndarray, " n"]:
        """With a head: whether each of X is near enough to its class to be of any of them."""
        check_is_fitted(self, "predictor_")
        return self.predictor_.predict(X, batch_size=self.batch_size).known

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n way"]:
        """The probability of each class, in the order of `classes_`, for X (n, *shape)."""
        if hasattr(self, "predictor_"):
            return self.predictor_.predict(X, batch_size=self.batch_size).probabilities
        return self._predictions(X).softmax(dim=-1).numpy()


class FewShotRegressor(RegressorMixin, _FewShotEstimator):
    """A trained learner as a scikit-learn regressor.

    As `FewShotClassifier`, with values y (n,) or (n, outputs) in place of labels and `classes_`.

    Args:
        learner: a trained regression learner: its loss is mean_squared_error.
        batch_size: as for `FewShotClassifier`.

    Raises:
        ValueError: as for `FewShotClassifier`; in `fit` also for more outputs than the network has.

    Example:
        >>> from kshot.learners.optimization import MAML
        >>> from kshot.losses import mean_squared_error
        >>> learner = MAML(nn.Linear(1, 1), inner_lr=0.1, loss=mean_squared_error)
        >>> regressor = FewShotRegressor(learner).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
        >>> regressor.predict([[0.5], [1.5]]).shape
        (2,)
    """

    def __init__(self, learner: MetaLearner, *, batch_size: int = 128) -> None:
        super().__init__(learner, batch_size)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> "FewShotRegressor":
        """Adapt to examples X (n, *shape) of values y (n,) or (n, outputs)."""
        learner = checked_learner(self.learner, "regression", type(self).__name__)
        X, y = self._validate(learner, X, y=as_array(y), y_numeric=True, multi_output=True)
        self._adapt(learner, X, torch.tensor(y.astype(np.float64).reshape(len(y), -1).copy()))
        self._output_shape = y.shape[1:]
        return self

    def predict(self, X: Any) -> Float[np.ndarray, " n *outputs"]:
        """Values of the examples of X (n, *shape), with as many dimensions as y had."""
        return self._predictions(X).numpy().reshape(-1, *self._output_shape)

"""A verifier: enroll by a few examples, then accept or reject claims, or find who it is."""

import copy
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import torch

from kshot.episodes import Examples, one_hot
from kshot.learner import MetaLearner
from kshot.settings.verification.rates import threshold_at
from kshot.settings.verification.trials import Trials, require_apart
from kshot.user_examples import as_array, as_inputs, checked_learner, place_of, refusals

__all__ = ["Identified", "Verified", "Verifier"]


class Verified(NamedTuple):
    """The answer to a claim: its score, and whether that is enough."""

    score: float
    accepted: bool


class Identified(NamedTuple):
    """Who an example is most likely of, or None where no score is enough; and the best score."""

    identity: Hashable | None
    score: float


class Verifier:
    """Accepts or rejects the claim that an example is of an enrolled identity.

    Every identity is a task of one class, learned from its examples; enrolling another one, or
    removing one, changes nothing for the others.

    Args:
        learner: a trained learner that scores classes apart (`MetaLearner.classes_apart`).
        threshold: least score to accept; None until `calibrate` chose one.

    Attributes:
        threshold: as above.
        states: what was learned of every identity.

    Example:
        >>> from torch import nn
        >>> from kshot.learners.baselines.nearest_centroid import NearestCentroid
        >>> verifier = Verifier(NearestCentroid(nn.Flatten()), threshold=-1.0)
        >>> verifier.enroll("ann", [[0.0, 0.1], [0.1, 0.0]]).enroll("bob", [[5.0, 5.0]])
        Verifier(NearestCentroid, 2 enrolled, threshold -1)
        >>> verifier.verify("bob", [0.0, 0.0]).accepted
        False
        >>> verifier.identify([4.9, 5.1]).identity
        'bob'

    Note:
        Examples are as `FewShotClassifier` takes them: uint8 is divided by 255, pictures are
        (channels, height, width). Enroll by as many examples as `calibrate` did: scores of some
        learners grow with their number. The learner is copied: training it further changes nothing.
    """

    def __init__(self, learner: MetaLearner, *, threshold: float | None = None) -> None:
        learner = checked_learner(learner, "classification", type(self).__name__)
        require_apart(learner)
        # A copy, so that neither its mode here nor later training there reach the other.
        self.learner = copy.deepcopy(learner).eval()
        self.threshold = threshold
        self.states: dict[Hashable, Any] = {}

    def __repr__(self) -> str:
        threshold = "none" if self.threshold is None else f"{self.threshold:g}"
        named = f"{type(self).__name__}({type(self.learner).__name__}"
        return f"{named}, {len(self.states)} enrolled, threshold {threshold})"

    def enroll(self, identity: Hashable, X: Any) -> "Verifier":
        """Learn an identity from examples X (n, *shape), in place of what was known of it."""
        X = _examples(X)
        inputs = as_inputs(X, self.learner)
        targets = inputs.new_ones(1, len(X), 1)
        with torch.no_grad(), refusals(self.learner, X):
            self.states[identity] = self.learner.adapt(Examples(inputs, targets))
        return self

    def remove(self, identity: Hashable) -> "Verifier":
        """Forget an identity."""
        self._known(identity)
        del self.states[identity]
        return self

    def scores(self, identity: Hashable, X: Any) -> np.ndarray:
        """How alike each of X (n, *shape) and an identity are, (n,)."""
        state, X = self._known(identity), _examples(X)
        with torch.no_grad(), refusals(self.learner, X):
            scores = self.learner.predict(state, as_inputs(X, self.learner))
        return scores[0, :, 0].cpu().double().numpy()

    def verify(self, identity: Hashable, x: Any) -> Verified:
        """Whether one example x (*shape) is of the identity that it claims.

        Raises:
            KeyError: when nobody of that name is enrolled.
            ValueError: before a threshold was given or chosen.
        """
        score = float(self.scores(identity, _examples(x, one=True))[0])
        return Verified(score, score >= self._chosen_threshold())

    def identify(self, x: Any) -> Identified:
        """Whose example x (*shape) is: the most alike of all enrolled, if that is enough."""
        threshold = self._chosen_threshold()
        if not self.states:
            raise ValueError("Nobody is enrolled yet: call enroll(identity, X) first.")
        inputs = _examples(x, one=True)
        scores = {identity: float(self.scores(identity, inputs)[0]) for identity in self.states}
        best = max(scores, key=lambda identity: scores[identity])
        return Identified(best if scores[best] >= threshold else None, scores[best])

    def calibrate(self, X: Any, y: Any, *, shot: int = 1, false_accept: float = 0.01) -> "Verifier":
        """Choose the threshold on other identities than those that will be enrolled.

        Each of them is enrolled by its first `shot` examples, and all others are tried against
        everyone.

        Args:
            X: examples (n, *shape) of validation identities.
            y: (n,) whose each is.
            shot: examples to enroll by, as many as later.
            false_accept: share of false claims to accept.

        Raises:
            ValueError: when no example is left to try.
        """
        X, y = _examples(X), np.asarray(y)
        if y.shape != X.shape[:1]:
            raise ValueError(
                f"y must tell whose each of the {len(X)} examples is; it is {y.shape}."
            )
        names, columns = np.unique(y, return_inverse=True)
        place = np.zeros(len(y), dtype=np.int64)  # of an example among its identity's own
        for column in range(len(names)):
            place[columns == column] = np.arange((columns == column).sum())
        enrolled, rest = np.flatnonzero(place < shot), np.flatnonzero(place >= shot)
        if len(names) < 2 or not len(rest):
            raise ValueError(
                f"Choosing a threshold needs examples of two identities or more, and more than "
                f"{shot} of one; y has {len(names)} identities and {len(y)} examples."
            )
        # One task whose classes are the identities: they are scored apart, so all at once.
        targets = one_hot(torch.from_numpy(columns[enrolled]), len(names))
        device, dtype = place_of(self.learner)
        support = Examples(
            as_inputs(X[enrolled], self.learner), targets.to(device, dtype).unsqueeze(0)
        )
        with torch.no_grad(), refusals(self.learner, X):
            state = self.learner.adapt(support)
            scores = torch.cat(
                [
                    self.learner.predict(state, as_inputs(X[part], self.learner))[0]
                    for part in np.array_split(rest, -(-len(rest) // 128))
                ]
            )
        claimed = np.tile(np.arange(len(names)), len(rest))
        actual = columns[rest].repeat(len(names))
        trials = Trials(scores.cpu().double().numpy().ravel(), claimed, actual)
        self.threshold = threshold_at(trials, false_accept)
        return self

    def _known(self, identity: Hashable) -> Any:
        if identity not in self.states:
            raise KeyError(f"{identity!r} is not enrolled; {len(self.states)} are.")
        return self.states[identity]

    def _chosen_threshold(self) -> float:
        if self.threshold is None:
            raise ValueError(
                "There is no threshold yet: give one, or let calibrate(X, y) choose it on "
                "identities that will not be enrolled."
            )
        return self.threshold


def _examples(X: Any, *, one: bool = False) -> np.ndarray:
    """Examples (n, *shape) as an array of finite numbers; `one` alone comes without n."""
    X = np.asarray(as_array(X))
    X = X[None] if one else X
    if X.dtype.kind not in "fiub" or X.ndim < 2 or not len(X) or not np.isfinite(X).all():
        raise ValueError(
            f"Examples must be (n, *shape), at least one, of finite numbers; these are {X.shape} "
            f"of {X.dtype}. One example alone is X[None]."
        )
    return X

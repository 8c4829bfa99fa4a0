"""Optimization learners: the initialization or the update rule is learned."""

from kshot.learners.optimization.anil import ANIL
from kshot.learners.optimization.imaml import IMAML
from kshot.learners.optimization.inner_loop import inner_loop
from kshot.learners.optimization.lstm_meta_learner import LSTMMetaLearner
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.maml_plus_plus import MAMLPlusPlus
from kshot.learners.optimization.meta_sgd import MetaSGD
from kshot.learners.optimization.nil import NIL
from kshot.learners.optimization.reptile import Reptile
from kshot.learners.optimization.ridge import R2D2

__all__ = [
    "ANIL",
    "IMAML",
    "MAML",
    "NIL",
    "R2D2",
    "LSTMMetaLearner",
    "MAMLPlusPlus",
    "MetaSGD",
    "Reptile",
    "inner_loop",
]

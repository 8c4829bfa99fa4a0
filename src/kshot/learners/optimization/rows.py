"""The learners of an initialization or an update rule, by the short name of each paper."""

from functools import partial

from kshot.learners.optimization.anil import ANIL
from kshot.learners.optimization.imaml import IMAML
from kshot.learners.optimization.lstm_meta_learner import LSTMMetaLearner
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.maml_plus_plus import MAMLPlusPlus
from kshot.learners.optimization.meta_sgd import MetaSGD
from kshot.learners.optimization.nil import NIL
from kshot.learners.optimization.reptile import Reptile
from kshot.learners.optimization.ridge import R2D2
from kshot.learners.row import LearnerRow, encoder_alone, encoder_and_way, net_with_head

__all__ = ["ROWS"]

ROWS: dict[str, LearnerRow] = {
    "maml": LearnerRow(
        MAML,
        net_with_head,
        "optimization",
        "a learned initialization, adapted by a few gradient steps",
        "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017",
        kinds=("classification", "regression"),
        transductive=True,
    ),
    "fomaml": LearnerRow(
        partial(MAML, first_order=True),
        net_with_head,
        "optimization",
        "MAML without second derivatives",
        "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017",
        kinds=("classification", "regression"),
        meta_gradient="first_order",
        transductive=True,
    ),
    "anil": LearnerRow(
        ANIL,
        encoder_and_way,
        "optimization",
        "MAML whose steps move the head alone",
        "Rapid Learning or Feature Reuse? Towards Understanding ... MAML, ICLR 2020",
        kinds=("classification", "regression"),
        transductive=True,
    ),
    "nil": LearnerRow(
        NIL,
        encoder_alone,
        "optimization",
        "no inner loop: cosines of a trained body's embeddings",
        "Rapid Learning or Feature Reuse? Towards Understanding ... MAML, ICLR 2020",
        meta_trained=False,
        meta_gradient="none",
        transductive=True,
        of_any_encoder=True,
    ),
    "reptile": LearnerRow(
        Reptile,
        net_with_head,
        "optimization",
        "an initialization near where the steps of every task lead",
        "On First-Order Meta-Learning Algorithms, 2018",
        kinds=("classification", "regression"),
        meta_gradient="surrogate",
        transductive=True,
    ),
    "imaml": LearnerRow(
        IMAML,
        net_with_head,
        "optimization",
        "MAML whose derivative is that of an inner minimum, not of the steps to it",
        "Meta-Learning with Implicit Gradients, NeurIPS 2019",
        kinds=("classification", "regression"),
        meta_gradient="implicit",
        transductive=True,
    ),
    "meta_sgd": LearnerRow(
        MetaSGD,
        net_with_head,
        "optimization",
        "a learned initialization and a learned rate for each of its elements",
        "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning, 2017",
        kinds=("classification", "regression"),
        transductive=True,
    ),
    "maml_plus_plus": LearnerRow(
        MAMLPlusPlus,
        net_with_head,
        "optimization",
        "MAML with rates, normalization and a loss for each of its steps",
        "How to train your MAML, ICLR 2019",
        kinds=("classification", "regression"),
        transductive=True,
    ),
    "lstm_meta_learner": LearnerRow(
        LSTMMetaLearner,
        net_with_head,
        "optimization",
        "a learned initialization, moved by an LSTM that reads losses and gradients",
        "Optimization as a Model for Few-Shot Learning, ICLR 2017",
        kinds=("classification", "regression"),
        meta_gradient="first_order",
    ),
    "r2d2": LearnerRow(
        R2D2,
        encoder_alone,
        "optimization",
        "the head is solved by ridge regression, in closed form",
        "Meta-learning with differentiable closed-form solvers, ICLR 2019",
        kinds=("classification", "regression"),
        of_any_encoder=True,
    ),
}
"""What the registry holds of this family."""

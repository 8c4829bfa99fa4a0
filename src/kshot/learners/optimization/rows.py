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
        kinds=("classification", "regression"),
        transductive=True,
        notes=(
            "one inner step at test as in training (the paper: three); 10,000 outer steps "
            "of 64 tasks instead of 60,000 of 32; training pictures are moved a little and "
            "classes mirrored"
        ),
    ),
    "fomaml": LearnerRow(
        partial(MAML, first_order=True),
        net_with_head,
        "optimization",
        "MAML without second derivatives",
        kinds=("classification", "regression"),
        meta_gradient="first_order",
        transductive=True,
        notes=(
            "as `maml`, inner gradients taken as constants; inner rate 0.2, 16,000 outer steps "
            "of 64 tasks, pictures as they are; on 20 classes five inner steps of rate 0.3, 8,000 "
            "outer steps of 16 tasks"
        ),
    ),
    "anil": LearnerRow(
        ANIL,
        encoder_and_way,
        "optimization",
        "MAML whose steps move the head alone",
        kinds=("classification", "regression"),
        transductive=True,
        notes="the body sees every example once, whatever the number of steps",
    ),
    "nil": LearnerRow(
        NIL,
        encoder_alone,
        "optimization",
        "no inner loop: cosines of a trained body's embeddings",
        meta_trained=False,
        meta_gradient="none",
        transductive=True,
        of_any_encoder=True,
        notes="scores a trained run's body; the sum of cosines, as the paper has it",
    ),
    "reptile": LearnerRow(
        Reptile,
        net_with_head,
        "optimization",
        "an initialization near where the steps of every task lead",
        kinds=("classification", "regression"),
        meta_gradient="surrogate",
        transductive=True,
        notes=(
            "80,000 outer steps of 4 tasks instead of 100,000 of 5 and one and a half times the "
            "inner rate; on 20 classes 10,000 of 4 and four times; with `carry_over` the inner "
            "Adam's averages go on from task to task, as the authors' do; tasks of a meta-batch "
            "begin from the same ones, and their mean is carried on; without it every task starts "
            "afresh"
        ),
    ),
    "imaml": LearnerRow(
        IMAML,
        net_with_head,
        "optimization",
        "MAML whose derivative is that of an inner minimum, not of the steps to it",
        kinds=("classification", "regression"),
        meta_gradient="implicit",
        transductive=True,
        notes=(
            "gradient descent within tasks, eight steps of 0.05 and a quarter of the paper's pull, "
            "since with sixteen of 0.1 they do not arrive; conjugate gradient that stops where the "
            "curvature is negative, damped as in the authors' code; 3,400 outer steps of 16 tasks, "
            "on 20 classes 4,000 of 4"
        ),
    ),
    "meta_sgd": LearnerRow(
        MetaSGD,
        net_with_head,
        "optimization",
        "a learned initialization and a learned rate for each of its elements",
        kinds=("classification", "regression"),
        transductive=True,
        notes=(
            "batch statistics, as in MAML's code; first rates .05 to .2, 11,000 outer steps; on 20 "
            "classes 6,000 of 16 tasks"
        ),
    ),
    "maml_plus_plus": LearnerRow(
        MAMLPlusPlus,
        net_with_head,
        "optimization",
        "MAML with rates, normalization and a loss for each of its steps",
        kinds=("classification", "regression"),
        transductive=True,
        notes=(
            "with five steps 6,000 outer steps of 8 tasks instead of 50,000, with one 10,000 of "
            "64, on 20 classes 4,800 of 16; trained under batch statistics, its inner steps "
            "diverge under the averages (`per_step`); normalization belongs to the number of "
            "steps taken, so support and query at the same parameters share it; the averages are "
            "read at test under `per_step`, which the authors' code never does"
        ),
    ),
    "lstm_meta_learner": LearnerRow(
        LSTMMetaLearner,
        net_with_head,
        "optimization",
        "a learned initialization, moved by an LSTM that reads losses and gradients",
        kinds=("classification", "regression"),
        meta_gradient="first_order",
        notes=(
            "the gradient of the mean loss is not divided by the number of examples once more, "
            "as the authors' code does; in evaluation, statistics of the whole support set "
            "under the adapted parameters instead of an average over steps; gates fed back "
            "before the sigmoid as in the code, or after it as in the paper"
        ),
    ),
    "r2d2": LearnerRow(
        R2D2,
        encoder_alone,
        "optimization",
        "the head is solved by ridge regression, in closed form",
        kinds=("classification", "regression"),
        of_any_encoder=True,
        notes=(
            "any encoder, not the paper's own: conv4 here; its statistics are the running ones,"
            " so it is inductive; each part of an episode's examples is the support in turn; "
            "training pictures are moved a little and classes mirrored"
        ),
    ),
}
"""What the registry holds of this family."""

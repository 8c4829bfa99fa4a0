"""The baselines, by the short name of each paper."""

from functools import partial

from kshot.learners.baselines.contrastive import Contrastive
from kshot.learners.baselines.cosine_classifiers import BaselinePlusPlus, Imprinted
from kshot.learners.baselines.fine_tuning import FineTuning
from kshot.learners.baselines.linear_heads import LogisticHead, RidgeHead
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.baselines.nearest_neighbor import NearestNeighbor
from kshot.learners.baselines.simple_shot import SimpleShot
from kshot.learners.row import LearnerRow, encoder_alone, encoder_and_outputs, encoder_and_way

__all__ = ["ROWS"]

_untrained = partial(LearnerRow, meta_trained=False, meta_gradient="none", of_any_encoder=True)

ROWS: dict[str, LearnerRow] = {
    "nearest_centroid": _untrained(
        NearestCentroid,
        encoder_alone,
        "baselines",
        "nearest class mean on pixels or on a frozen encoder",
        notes=(
            "the pixel baseline of every table, by cosine; the papers' pixel row is the nearest"
            " single example"
        ),
    ),
    "nearest_neighbor": _untrained(
        NearestNeighbor,
        encoder_alone,
        "baselines",
        "most similar support example, on pixels or on a frozen encoder",
        notes=(
            "the papers' pixel baseline, and that of pre-trained features: scores any trained "
            "run by `kshot evaluate RUN --learner nearest_neighbor`; largest cosine with a "
            "single example"
        ),
    ),
    "ridge": _untrained(
        RidgeHead,
        encoder_alone,
        "baselines",
        "ridge regression on a frozen encoder, its strength by leave-one-out",
        notes=(
            "embeddings of length 1; strengths are multiples of their mean squared distance "
            "from their mean; measured as a head of [intents and pictures](heads.md)"
        ),
    ),
    "logistic": _untrained(
        LogisticHead,
        encoder_alone,
        "baselines",
        "logistic regression on a frozen encoder",
        notes=(
            "multinomial logistic regression by [L-BFGS](https://doi.org/10.1007/BF01589116); "
            "embeddings of length 1, C = 10; measured as a head of [intents and pictures](heads.md)"
        ),
    ),
    "fine_tuning": LearnerRow(
        FineTuning,
        encoder_and_outputs,
        "baselines",
        "joint pre-training, then gradient steps on the support set",
        kinds=("classification", "regression"),
        meta_gradient="surrogate",
        of_any_encoder=True,
        notes=(
            "the pre-training baseline of the paper; in classification a new linear head, zero "
            "at first, for every task"
        ),
    ),
    "contrastive": LearnerRow(
        Contrastive,
        encoder_and_way,
        "baselines",
        "pre-training without labels, then gradient steps on the support set",
        meta_gradient="surrogate",
        of_any_encoder=True,
        notes=(
            "small affine moves as views; after pre-training a new linear head, zero at first, "
            "for every task"
        ),
    ),
    "simple_shot": LearnerRow(
        SimpleShot,
        encoder_and_outputs,
        "baselines",
        "pre-training, then nearest class mean of centered and scaled embeddings",
        meta_gradient="surrogate",
        notes="the center of the training classes is a mean over the last hundred batches",
    ),
    "imprinted": LearnerRow(
        Imprinted,
        encoder_and_outputs,
        "baselines",
        "pre-training with cosines; the mean direction of a new class is its weights",
        meta_gradient="surrogate",
        of_any_encoder=True,
        notes="fine-tuning moves the new weights alone, the paper's the whole network",
    ),
    "baseline_plus_plus": LearnerRow(
        BaselinePlusPlus,
        encoder_and_outputs,
        "baselines",
        "pre-training with cosines, then a cosine head for each task by gradient steps",
        meta_gradient="surrogate",
        of_any_encoder=True,
        notes=(
            "plain gradient steps on the whole support set instead of minibatches of 4 with "
            'momentum; the paper\'s Baseline is `fine_tuning` with `tune = "head"`'
        ),
    ),
}
"""What the registry holds of this family."""

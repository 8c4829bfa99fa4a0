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
        "-",
    ),
    "nearest_neighbor": _untrained(
        NearestNeighbor,
        encoder_alone,
        "baselines",
        "most similar support example, on pixels or on a frozen encoder",
        "-",
    ),
    "ridge": _untrained(
        RidgeHead,
        encoder_alone,
        "baselines",
        "ridge regression on a frozen encoder, its strength by leave-one-out",
        "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter, 1979",
    ),
    "logistic": _untrained(
        LogisticHead,
        encoder_alone,
        "baselines",
        "logistic regression on a frozen encoder",
        "-",
    ),
    "fine_tuning": LearnerRow(
        FineTuning,
        encoder_and_outputs,
        "baselines",
        "joint pre-training, then gradient steps on the support set",
        "The pre-training baseline of MAML, ICML 2017",
        kinds=("classification", "regression"),
        meta_gradient="surrogate",
        of_any_encoder=True,
    ),
    "contrastive": LearnerRow(
        Contrastive,
        encoder_and_way,
        "baselines",
        "pre-training without labels, then gradient steps on the support set",
        "A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020",
        meta_gradient="surrogate",
        of_any_encoder=True,
    ),
    "simple_shot": LearnerRow(
        SimpleShot,
        encoder_and_outputs,
        "baselines",
        "pre-training, then nearest class mean of centered and scaled embeddings",
        "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning, 2019",
        meta_gradient="surrogate",
    ),
    "imprinted": LearnerRow(
        Imprinted,
        encoder_and_outputs,
        "baselines",
        "pre-training with cosines; the mean direction of a new class is its weights",
        "Low-Shot Learning with Imprinted Weights, CVPR 2018",
        meta_gradient="surrogate",
        of_any_encoder=True,
    ),
    "baseline_plus_plus": LearnerRow(
        BaselinePlusPlus,
        encoder_and_outputs,
        "baselines",
        "pre-training with cosines, then a cosine head for each task by gradient steps",
        "A Closer Look at Few-shot Classification, ICLR 2019",
        meta_gradient="surrogate",
        of_any_encoder=True,
    ),
}
"""What the registry holds of this family."""

"""The registry of learners: name -> constructor and traits, read by CLI, tests, docs and demo."""

from functools import partial
from typing import Any

from torch import nn

from kshot.backbones.heads import WithHead
from kshot.backbones.registry import build_backbone
from kshot.config import Choice
from kshot.learner import MetaLearner
from kshot.learners.baselines.contrastive import Contrastive
from kshot.learners.baselines.cosine_classifiers import BaselinePlusPlus, Imprinted
from kshot.learners.baselines.fine_tuning import FineTuning
from kshot.learners.baselines.linear_heads import LogisticHead, RidgeHead
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.baselines.nearest_neighbor import NearestNeighbor
from kshot.learners.baselines.simple_shot import SimpleShot
from kshot.learners.memory.mann import MANN
from kshot.learners.memory.ntm import NTM
from kshot.learners.memory.recurrent import RecurrentLearner
from kshot.learners.metric.embedding_losses import MetricEmbedding
from kshot.learners.metric.gaussian import GaussianProtoNet
from kshot.learners.metric.matching import MatchingNet
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.metric.relation import RelationNet
from kshot.learners.metric.semi_supervised import SemiSupervisedProtoNet
from kshot.learners.metric.siamese import SiameseNet
from kshot.learners.optimization.anil import ANIL
from kshot.learners.optimization.imaml import IMAML
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.maml_plus_plus import MAMLPlusPlus
from kshot.learners.optimization.meta_sgd import MetaSGD
from kshot.learners.optimization.nil import NIL
from kshot.learners.optimization.reptile import Reptile
from kshot.learners.optimization.ridge import R2D2
from kshot.learners.row import LearnerRow, TaskShape
from kshot.losses import cross_entropy, mean_squared_error
from kshot.options import call_with_options, nearest

__all__ = ["LEARNERS", "LearnerRow", "TaskShape", "build_learner"]


def _encoder(encoder: nn.Module, tasks: TaskShape) -> tuple[Any, ...]:
    return (encoder,)


def _net(encoder: nn.Module, tasks: TaskShape) -> tuple[Any, ...]:
    return (WithHead(encoder, tasks.way),)


def _encoder_and_way(encoder: nn.Module, tasks: TaskShape) -> tuple[Any, ...]:
    return (encoder, tasks.way)


def _encoder_and_outputs(encoder: nn.Module, tasks: TaskShape) -> tuple[Any, ...]:
    return (encoder, tasks.num_classes or tasks.way)


_untrained = partial(LearnerRow, meta_trained=False, meta_gradient="none", of_any_encoder=True)
_read_in_turn = partial(
    LearnerRow,
    arguments=_encoder_and_way,
    family="memory",
    kinds=("classification", "regression"),
    online=True,
)

LEARNERS: dict[str, LearnerRow] = {
    "nearest_centroid": _untrained(
        NearestCentroid,
        _encoder,
        "baselines",
        "nearest class mean on pixels or on a frozen encoder",
        "-",
    ),
    "nearest_neighbor": _untrained(
        NearestNeighbor,
        _encoder,
        "baselines",
        "most similar support example, on pixels or on a frozen encoder",
        "-",
    ),
    "ridge": _untrained(
        RidgeHead,
        _encoder,
        "baselines",
        "ridge regression on a frozen encoder, its strength by leave-one-out",
        "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter, 1979",
    ),
    "logistic": _untrained(
        LogisticHead,
        _encoder,
        "baselines",
        "logistic regression on a frozen encoder",
        "-",
    ),
    "fine_tuning": LearnerRow(
        FineTuning,
        _encoder_and_outputs,
        "baselines",
        "joint pre-training, then gradient steps on the support set",
        "The pre-training baseline of MAML, ICML 2017",
        kinds=("classification", "regression"),
        meta_gradient="surrogate",
        of_any_encoder=True,
    ),
    "contrastive": LearnerRow(
        Contrastive,
        _encoder_and_way,
        "baselines",
        "pre-training without labels, then gradient steps on the support set",
        "A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020",
        meta_gradient="surrogate",
        of_any_encoder=True,
    ),
    "simple_shot": LearnerRow(
        SimpleShot,
        _encoder_and_outputs,
        "baselines",
        "pre-training, then nearest class mean of centered and scaled embeddings",
        "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning, 2019",
        meta_gradient="surrogate",
    ),
    "imprinted": LearnerRow(
        Imprinted,
        _encoder_and_outputs,
        "baselines",
        "pre-training with cosines; the mean direction of a new class is its weights",
        "Low-Shot Learning with Imprinted Weights, CVPR 2018",
        meta_gradient="surrogate",
        of_any_encoder=True,
    ),
    "baseline_plus_plus": LearnerRow(
        BaselinePlusPlus,
        _encoder_and_outputs,
        "baselines",
        "pre-training with cosines, then a cosine head for each task by gradient steps",
        "A Closer Look at Few-shot Classification, ICLR 2019",
        meta_gradient="surrogate",
        of_any_encoder=True,
    ),
    "siamese": LearnerRow(
        SiameseNet,
        _encoder,
        "metric",
        "whether two examples are of one class; then the most similar support example",
        "Siamese Neural Networks for One-shot Image Recognition, ICML Deep Learning Workshop 2015",
        meta_gradient="surrogate",
    ),
    "contrastive_pairs": LearnerRow(
        partial(MetricEmbedding, objective="contrastive"),
        _encoder_and_outputs,
        "metric",
        "pairs of one class drawn together, of two pushed apart",
        "Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006",
        meta_gradient="surrogate",
    ),
    "triplet": LearnerRow(
        partial(MetricEmbedding, objective="triplet"),
        _encoder_and_outputs,
        "metric",
        "an example closer to its class than to others, by a margin",
        "FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015",
        meta_gradient="surrogate",
    ),
    "sphereface": LearnerRow(
        partial(MetricEmbedding, objective="sphereface"),
        _encoder_and_outputs,
        "metric",
        "softmax over training classes, angles multiplied",
        "SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017",
        meta_gradient="surrogate",
    ),
    "cosface": LearnerRow(
        partial(MetricEmbedding, objective="cosface"),
        _encoder_and_outputs,
        "metric",
        "softmax over training classes, a margin taken from cosines",
        "CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018",
        meta_gradient="surrogate",
    ),
    "arcface": LearnerRow(
        partial(MetricEmbedding, objective="arcface"),
        _encoder_and_outputs,
        "metric",
        "softmax over training classes, a margin added to angles",
        "ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019",
        meta_gradient="surrogate",
    ),
    "matching": LearnerRow(
        MatchingNet,
        _encoder,
        "metric",
        "attention over the support examples, whose labels are mixed",
        "Matching Networks for One Shot Learning, NeurIPS 2016",
        of_any_encoder=True,
    ),
    "matching_fce": LearnerRow(
        partial(MatchingNet, full_context=True),
        _encoder,
        "metric",
        "matching networks whose embeddings depend on the support set",
        "Matching Networks for One Shot Learning, NeurIPS 2016",
    ),
    "protonet": LearnerRow(
        ProtoNet,
        _encoder,
        "metric",
        "nearest class mean in a learned embedding",
        "Prototypical Networks for Few-shot Learning, NeurIPS 2017",
        of_any_encoder=True,
    ),
    "gaussian_protonet": LearnerRow(
        GaussianProtoNet,
        _encoder,
        "metric",
        "prototypes weighted, and distances scaled, by how certain each example is",
        "Gaussian Prototypical Networks for Few-Shot Learning on Omniglot, 2017",
    ),
    "semi_supervised_protonet": LearnerRow(
        SemiSupervisedProtoNet,
        _encoder,
        "metric",
        "prototypes refined by unlabelled support examples",
        "Meta-Learning for Semi-Supervised Few-Shot Classification, ICLR 2018",
    ),
    "relation": LearnerRow(
        RelationNet,
        _encoder,
        "metric",
        "a network that scores each query beside each class",
        "Learning to Compare: Relation Network for Few-Shot Learning, CVPR 2018",
    ),
    "lstm": _read_in_turn(
        partial(RecurrentLearner, cell="lstm"),
        summary="an LSTM reads examples in turn, each label one step late",
        reference="Learning to Learn Using Gradient Descent, ICANN 2001",
    ),
    "gru": _read_in_turn(
        partial(RecurrentLearner, cell="gru"),
        summary="a GRU reads examples in turn, each label one step late",
        reference="Learning to Learn Using Gradient Descent, ICANN 2001",
    ),
    "ntm": _read_in_turn(
        NTM,
        summary="a controller that reads and writes a memory by content and by place",
        reference="Neural Turing Machines, 2014",
    ),
    "mann": _read_in_turn(
        MANN,
        summary="a memory read by content, and written where it was used least",
        reference="Meta-Learning with Memory-Augmented Neural Networks, ICML 2016",
    ),
    "maml": LearnerRow(
        MAML,
        _net,
        "optimization",
        "a learned initialization, adapted by a few gradient steps",
        "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017",
        kinds=("classification", "regression"),
        transductive=True,
    ),
    "fomaml": LearnerRow(
        partial(MAML, first_order=True),
        _net,
        "optimization",
        "MAML without second derivatives",
        "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017",
        kinds=("classification", "regression"),
        meta_gradient="first_order",
        transductive=True,
    ),
    "anil": LearnerRow(
        ANIL,
        _encoder_and_way,
        "optimization",
        "MAML whose steps move the head alone",
        "Rapid Learning or Feature Reuse? Towards Understanding ... MAML, ICLR 2020",
        kinds=("classification", "regression"),
        transductive=True,
    ),
    "nil": LearnerRow(
        NIL,
        _encoder,
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
        _net,
        "optimization",
        "an initialization near where the steps of every task lead",
        "On First-Order Meta-Learning Algorithms, 2018",
        kinds=("classification", "regression"),
        meta_gradient="surrogate",
        transductive=True,
    ),
    "imaml": LearnerRow(
        IMAML,
        _net,
        "optimization",
        "MAML whose derivative is that of an inner minimum, not of the steps to it",
        "Meta-Learning with Implicit Gradients, NeurIPS 2019",
        kinds=("classification", "regression"),
        meta_gradient="implicit",
        transductive=True,
    ),
    "meta_sgd": LearnerRow(
        MetaSGD,
        _net,
        "optimization",
        "a learned initialization and a learned rate for each of its elements",
        "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning, 2017",
        kinds=("classification", "regression"),
        transductive=True,
    ),
    "maml_plus_plus": LearnerRow(
        MAMLPlusPlus,
        _net,
        "optimization",
        "MAML with rates, normalization and a loss for each of its steps",
        "How to train your MAML, ICLR 2019",
        kinds=("classification", "regression"),
        transductive=True,
    ),
    "r2d2": LearnerRow(
        R2D2,
        _encoder,
        "optimization",
        "the head is solved by ridge regression, in closed form",
        "Meta-learning with differentiable closed-form solvers, ICLR 2019",
        kinds=("classification", "regression"),
        of_any_encoder=True,
    ),
}
"""Every learner, by the short name of its paper."""


def build_learner(learner: Choice, backbone: Choice | nn.Module, tasks: TaskShape) -> MetaLearner:
    """Build a learner by name, on a backbone by name or on an encoder that there is.

    Raises:
        ValueError: for an unknown name or option, naming the nearest known one, and for a learner
            that cannot learn the kind of task.
    """
    row = learner_row(learner.name)
    if tasks.kind not in row.kinds:
        able = [name for name, other in LEARNERS.items() if tasks.kind in other.kinds]
        raise ValueError(
            f"{learner.name} cannot learn {tasks.kind} tasks; these can: {', '.join(able)}."
        )
    encoder = backbone
    if isinstance(encoder, Choice):
        encoder = build_backbone(encoder, tasks.input_shape)
    loss = cross_entropy if tasks.kind == "classification" else mean_squared_error
    return call_with_options(
        partial(row.constructor, loss=loss),
        learner.options,
        f"learner {learner.name!r}",
        *row.arguments(encoder, tasks),
    )


def learner_row(name: str) -> LearnerRow:
    """The row of a learner, or an error that suggests the nearest name."""
    if name not in LEARNERS:
        raise ValueError(f"Unknown learner {name!r}.{nearest(name, LEARNERS)}")
    return LEARNERS[name]

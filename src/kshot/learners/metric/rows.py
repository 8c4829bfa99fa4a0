"""The learners that compare, by the short name of each paper."""

from functools import partial

from kshot.learners.metric.embedding_losses import MetricEmbedding
from kshot.learners.metric.gaussian import GaussianProtoNet
from kshot.learners.metric.matching import MatchingNet
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.metric.relation import RelationNet
from kshot.learners.metric.semi_supervised import SemiSupervisedProtoNet
from kshot.learners.metric.siamese import SiameseNet
from kshot.learners.row import LearnerRow, encoder_alone, encoder_and_outputs

__all__ = ["ROWS"]

ROWS: dict[str, LearnerRow] = {
    "siamese": LearnerRow(
        SiameseNet,
        encoder_alone,
        "metric",
        "whether two examples are of one class; then the most similar support example",
        "Siamese Neural Networks for One-shot Image Recognition, ICML Deep Learning Workshop 2015",
        meta_gradient="surrogate",
    ),
    "contrastive_pairs": LearnerRow(
        partial(MetricEmbedding, objective="contrastive"),
        encoder_and_outputs,
        "metric",
        "pairs of one class drawn together, of two pushed apart",
        "Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006",
        meta_gradient="surrogate",
    ),
    "triplet": LearnerRow(
        partial(MetricEmbedding, objective="triplet"),
        encoder_and_outputs,
        "metric",
        "an example closer to its class than to others, by a margin",
        "FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015",
        meta_gradient="surrogate",
    ),
    "sphereface": LearnerRow(
        partial(MetricEmbedding, objective="sphereface"),
        encoder_and_outputs,
        "metric",
        "softmax over training classes, angles multiplied",
        "SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017",
        meta_gradient="surrogate",
    ),
    "cosface": LearnerRow(
        partial(MetricEmbedding, objective="cosface"),
        encoder_and_outputs,
        "metric",
        "softmax over training classes, a margin taken from cosines",
        "CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018",
        meta_gradient="surrogate",
    ),
    "arcface": LearnerRow(
        partial(MetricEmbedding, objective="arcface"),
        encoder_and_outputs,
        "metric",
        "softmax over training classes, a margin added to angles",
        "ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019",
        meta_gradient="surrogate",
    ),
    "matching": LearnerRow(
        MatchingNet,
        encoder_alone,
        "metric",
        "attention over the support examples, whose labels are mixed",
        "Matching Networks for One Shot Learning, NeurIPS 2016",
        of_any_encoder=True,
    ),
    "matching_fce": LearnerRow(
        partial(MatchingNet, full_context=True),
        encoder_alone,
        "metric",
        "matching networks whose embeddings depend on the support set",
        "Matching Networks for One Shot Learning, NeurIPS 2016",
    ),
    "protonet": LearnerRow(
        ProtoNet,
        encoder_alone,
        "metric",
        "nearest class mean in a learned embedding",
        "Prototypical Networks for Few-shot Learning, NeurIPS 2017",
        of_any_encoder=True,
    ),
    "gaussian_protonet": LearnerRow(
        GaussianProtoNet,
        encoder_alone,
        "metric",
        "prototypes weighted, and distances scaled, by how certain each example is",
        "Gaussian Prototypical Networks for Few-Shot Learning on Omniglot, 2017",
    ),
    "semi_supervised_protonet": LearnerRow(
        SemiSupervisedProtoNet,
        encoder_alone,
        "metric",
        "prototypes refined by unlabelled support examples",
        "Meta-Learning for Semi-Supervised Few-Shot Classification, ICLR 2018",
    ),
    "relation": LearnerRow(
        RelationNet,
        encoder_alone,
        "metric",
        "a network that scores each query beside each class",
        "Learning to Compare: Relation Network for Few-Shot Learning, CVPR 2018",
    ),
}
"""What the registry holds of this family."""

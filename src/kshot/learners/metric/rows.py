"""The learners that compare, by the short name of each paper."""

from functools import partial

from kshot.learners.metric.embedding_losses import OBJECTIVE_PAPERS, MetricEmbedding
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
        meta_gradient="surrogate",
        notes=(
            "the encoder's embeddings are compared as they are, without a sigmoid layer "
            "(`features` adds it); all pairs of an episode instead of sampled ones, those of "
            "one class and of two weighing the same; a bias in the verification logit, and a "
            "weight that does not depend on the number of features"
        ),
    ),
    "contrastive_pairs": LearnerRow(
        partial(MetricEmbedding, objective="contrastive"),
        encoder_and_outputs,
        "metric",
        "pairs of one class drawn together, of two pushed apart",
        meta_gradient="surrogate",
        paper=OBJECTIVE_PAPERS["contrastive"],
        notes="pairs of one class and of two weigh the same",
    ),
    "triplet": LearnerRow(
        partial(MetricEmbedding, objective="triplet"),
        encoder_and_outputs,
        "metric",
        "an example closer to its class than to others, by a margin",
        meta_gradient="surrogate",
        paper=OBJECTIVE_PAPERS["triplet"],
        notes="triplets are mined by pytorch-metric-learning (extra `metric`)",
    ),
    "sphereface": LearnerRow(
        partial(MetricEmbedding, objective="sphereface"),
        encoder_and_outputs,
        "metric",
        "softmax over training classes, angles multiplied",
        meta_gradient="surrogate",
        paper=OBJECTIVE_PAPERS["sphereface"],
        notes="annealed as its authors train it",
    ),
    "cosface": LearnerRow(
        partial(MetricEmbedding, objective="cosface"),
        encoder_and_outputs,
        "metric",
        "softmax over training classes, a margin taken from cosines",
        meta_gradient="surrogate",
        paper=OBJECTIVE_PAPERS["cosface"],
        notes="a scale of 16 for fewer classes than faces",
    ),
    "arcface": LearnerRow(
        partial(MetricEmbedding, objective="arcface"),
        encoder_and_outputs,
        "metric",
        "softmax over training classes, a margin added to angles",
        meta_gradient="surrogate",
        paper=OBJECTIVE_PAPERS["arcface"],
        notes="a scale of 16 for fewer classes than faces",
    ),
    "matching": LearnerRow(
        MatchingNet,
        encoder_alone,
        "metric",
        "attention over the support examples, whose labels are mixed",
        of_any_encoder=True,
        notes=(
            "each part of an episode's examples is the support in turn; a learned scale of the "
            "cosine"
        ),
    ),
    "matching_fce": LearnerRow(
        partial(MatchingNet, full_context=True),
        encoder_alone,
        "metric",
        "matching networks whose embeddings depend on the support set",
        notes=(
            "as `matching`; the attention LSTM gets what it read beside its input, which is its"
            " wide state written otherwise"
        ),
    ),
    "protonet": LearnerRow(
        ProtoNet,
        encoder_alone,
        "metric",
        "nearest class mean in a learned embedding",
        of_any_encoder=True,
        notes=(
            "each part of an episode's examples is the support in turn; cosine decay from 4e-3 "
            "over 4,200 episodes in bfloat16 instead of halving 1e-3 every 2,000; training "
            "pictures are moved a little and classes mirrored; `ZeroShotProtoNet` is its zero-"
            "shot form, in Python only: it needs an encoder of descriptions too"
        ),
    ),
    "gaussian_protonet": LearnerRow(
        GaussianProtoNet,
        encoder_alone,
        "metric",
        "prototypes weighted, and distances scaled, by how certain each example is",
        notes=(
            "inverse variances come from a linear layer on the embedding, not from further "
            "channels of the last convolution"
        ),
    ),
    "semi_supervised_protonet": LearnerRow(
        SemiSupervisedProtoNet,
        encoder_alone,
        "metric",
        "prototypes refined by unlabelled support examples",
        notes=(
            "as in the authors' code no gradient flows through the statistics that the mask is "
            "made of; the mask counts once, as in the paper, and not twice"
        ),
    ),
    "relation": LearnerRow(
        RelationNet,
        encoder_alone,
        "metric",
        "a network that scores each query beside each class",
        notes=(
            "the first layer of the relation module is applied to classes and queries apart and"
            " added, which is the same function; inductive unless asked otherwise, the authors'"
            " code is transductive"
        ),
    ),
}
"""What the registry holds of this family."""

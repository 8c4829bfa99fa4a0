"""The public names of kshot, grouped by stage; `__init__.py` loads each when it is first used."""

# The contract
from kshot.config import (
    EpisodeConfig as EpisodeConfig,
    RunConfig as RunConfig,
    TrainingConfig as TrainingConfig,
)
from kshot.episodes import Episodes as Episodes, Examples as Examples, one_hot as one_hot
from kshot.learner import MetaLearner as MetaLearner
from kshot.losses import cross_entropy as cross_entropy, mean_squared_error as mean_squared_error

# 1. From files to episodes
from kshot.data.dataset import LabelledDataset as LabelledDataset
from kshot.data.frozen import load_episodes as load_episodes, save_episodes as save_episodes
from kshot.data.sampler import EpisodeSampler as EpisodeSampler
from kshot.data.sources import (
    glyphs as glyphs,
    image_folder as image_folder,
    omniglot as omniglot,
    orl_faces as orl_faces,
    sinusoid as sinusoid,
)
from kshot.data.splits import LabelledSplits as LabelledSplits

# 2. Networks
from kshot.backbones.conv4 import Conv4 as Conv4
from kshot.backbones.feature_maps import FeatureMaps as FeatureMaps
from kshot.backbones.heads import Flatten as Flatten, WithHead as WithHead
from kshot.backbones.koch import KochEncoder as KochEncoder
from kshot.backbones.mlp import MLP as MLP
from kshot.backbones.conversion import split_affine as split_affine
from kshot.backbones.normalization import BatchNorm as BatchNorm
from kshot.backbones.resnet12 import ResNet12 as ResNet12

# From pictures and sentences to embeddings
from kshot.encoders import (
    EmbeddingCache as EmbeddingCache,
    Encoder as Encoder,
    PictureEncoder as PictureEncoder,
    TextEncoder as TextEncoder,
    encode_cached as encode_cached,
    load_encoder as load_encoder,
)

# 3. Learners
from kshot.learners.baselines.contrastive import Contrastive as Contrastive
from kshot.learners.baselines.cosine_classifiers import (
    BaselinePlusPlus as BaselinePlusPlus,
    Imprinted as Imprinted,
)
from kshot.learners.baselines.fine_tuning import FineTuning as FineTuning
from kshot.learners.baselines.linear_heads import (
    LogisticHead as LogisticHead,
    RidgeHead as RidgeHead,
)
from kshot.learners.baselines.nearest_centroid import NearestCentroid as NearestCentroid
from kshot.learners.baselines.nearest_neighbor import NearestNeighbor as NearestNeighbor
from kshot.learners.baselines.simple_shot import SimpleShot as SimpleShot
from kshot.learners.embedding_learner import EmbeddingLearner as EmbeddingLearner
from kshot.learners.ensemble import Ensemble as Ensemble
from kshot.learners.memory.mann import MANN as MANN
from kshot.learners.memory.meta_networks import MetaNet as MetaNet
from kshot.learners.memory.ntm import NTM as NTM
from kshot.learners.memory.recurrent import RecurrentLearner as RecurrentLearner
from kshot.learners.memory.sequence_learner import SequenceLearner as SequenceLearner
from kshot.learners.memory.snail import SNAIL as SNAIL
from kshot.learners.memory.turing_machine import TuringMachine as TuringMachine
from kshot.learners.metric.embedding_losses import MetricEmbedding as MetricEmbedding
from kshot.learners.metric.gaussian import GaussianProtoNet as GaussianProtoNet
from kshot.learners.metric.matching import MatchingNet as MatchingNet
from kshot.learners.metric.prototypical import ProtoNet as ProtoNet
from kshot.learners.metric.relation import RelationNet as RelationNet
from kshot.learners.metric.semi_supervised import (
    SemiSupervisedProtoNet as SemiSupervisedProtoNet,
)
from kshot.learners.metric.siamese import SiameseNet as SiameseNet
from kshot.learners.metric.zero_shot import ZeroShotProtoNet as ZeroShotProtoNet
from kshot.learners.optimization.anil import ANIL as ANIL
from kshot.learners.optimization.black_box import BlackBoxOptimizer as BlackBoxOptimizer
from kshot.learners.optimization.imaml import IMAML as IMAML
from kshot.learners.optimization.inner_loop import inner_loop as inner_loop
from kshot.learners.optimization.lstm_meta_learner import LSTMMetaLearner as LSTMMetaLearner
from kshot.learners.optimization.maml import MAML as MAML
from kshot.learners.optimization.maml_plus_plus import MAMLPlusPlus as MAMLPlusPlus
from kshot.learners.optimization.meta_sgd import MetaSGD as MetaSGD
from kshot.learners.optimization.nil import NIL as NIL
from kshot.learners.optimization.reptile import Reptile as Reptile
from kshot.learners.optimization.ridge import R2D2 as R2D2
from kshot.learners.optimization.update_rules import (
    SGD as SGD,
    Adam as Adam,
    GatedRule as GatedRule,
    LearnedOptimizer as LearnedOptimizer,
    Momentum as Momentum,
    UpdateRule as UpdateRule,
    torch_optimizer as torch_optimizer,
)
from kshot.learners.registry import LEARNERS as LEARNERS

# 4. Numbers one can trust
from kshot.evaluation.evaluate import evaluate as evaluate, paired_difference as paired_difference
from kshot.evaluation.instances import evaluate_instances as evaluate_instances
from kshot.evaluation.intervals import mean_interval as mean_interval

# 5. The outer loop
from kshot.training.run import load_run as load_run
from kshot.training.trainer import meta_train as meta_train

# A handful of examples of one's own: heads on frozen encoders
from kshot.heads import (
    HEADS as HEADS,
    FittedHead as FittedHead,
    calibration_error as calibration_error,
    fit_head as fit_head,
    hold_out as hold_out,
    train_adapter as train_adapter,
)
from kshot.predictor import Predictor as Predictor
from kshot.predictor_file import load_predictor as load_predictor, save_predictor as save_predictor

# The same learners as scikit-learn's estimators
from kshot.estimator import (
    FewShotClassifier as FewShotClassifier,
    FewShotRegressor as FewShotRegressor,
)

# The same learners under other kinds of task
from kshot.settings.verification.verifier import Verifier as Verifier

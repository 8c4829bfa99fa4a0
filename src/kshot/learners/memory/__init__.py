"""Memory learners: the network that reads the training set is learned."""

from kshot.learners.memory.mann import MANN
from kshot.learners.memory.meta_networks import MetaNet
from kshot.learners.memory.ntm import NTM
from kshot.learners.memory.recurrent import RecurrentLearner
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.learners.memory.snail import SNAIL
from kshot.learners.memory.turing_machine import TuringMachine

__all__ = [
    "MANN",
    "NTM",
    "SNAIL",
    "MetaNet",
    "RecurrentLearner",
    "SequenceLearner",
    "TuringMachine",
]

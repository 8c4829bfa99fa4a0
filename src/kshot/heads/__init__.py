"""Heads on embeddings: chosen, judged and calibrated by the few examples at hand alone."""

from kshot.heads.adapter import train_adapter
from kshot.heads.choice import HEADS, Candidate, FittedHead, fit_head
from kshot.heads.held_out import HeldOut, accuracy_estimate, hold_out
from kshot.heads.novelty import Familiarity, Rejection, rejection_threshold
from kshot.heads.temperature import calibration_error, fit_temperature

__all__ = [
    "HEADS",
    "Candidate",
    "Familiarity",
    "FittedHead",
    "HeldOut",
    "Rejection",
    "accuracy_estimate",
    "calibration_error",
    "fit_head",
    "fit_temperature",
    "hold_out",
    "rejection_threshold",
    "train_adapter",
]

"""Verification: is this the one it claims to be?"""

from kshot.settings.verification.rates import Rates, error_rates
from kshot.settings.verification.trials import Trials, collect_trials
from kshot.settings.verification.verifier import Identified, Verified, Verifier

__all__ = [
    "Identified",
    "Rates",
    "Trials",
    "Verified",
    "Verifier",
    "collect_trials",
    "error_rates",
]

"""Units, sampling, accounting, noise, and the ledger: what the privacy claim rests on.

Reading order: `plan` (what a run promises; `rules`: what one may hold, `planning`: how it is made),
`accountants` and `calibration` (the numbers behind it), `stream`, `sampling` and `noise` (the coins
and the noise; `discrete` and `grid`: noise of whole numbers, `bands`: noise that takes back earlier
noise), `ledger` (what a corpus may spend: `filter` is its cap, `journal` its file, `balance` its
sums, `admission` its judgement with `headroom`, `replay` its check, `summary` what comes of it),
`selection` (words of a private corpus), `choice` (one of several runs), `ancestor` (a release that
is trained further), `statement` (the claim in
words; `details` beside them).
Opacus, dp-accounting and torch are imported when a number is computed, not before.
"""

from dpmlm.privacy.accountants import (
    ACCOUNTANTS,
    AccountantFailure,
    SampledGaussian,
    describe,
    epsilon_of,
)
from dpmlm.privacy.balance import Budget
from dpmlm.privacy.bands import BandedNoise, band_coefficients, error_of_steps, error_of_sums
from dpmlm.privacy.calibration import calibrate, calibrate_steps
from dpmlm.privacy.choice import noisy_best
from dpmlm.privacy.discrete import DiscreteGaussian
from dpmlm.privacy.filter import RenyiFilter
from dpmlm.privacy.grid import GridNoise
from dpmlm.privacy.journal import Signer, Verifier
from dpmlm.privacy.ledger import Ledger
from dpmlm.privacy.noise import gaussian_noise
from dpmlm.privacy.plan import AccountantTable, PrivacyPlan
from dpmlm.privacy.planning import make_plan
from dpmlm.privacy.sampling import PoissonSampler, groups_of
from dpmlm.privacy.selection import PartitionSelection
from dpmlm.privacy.statement import Statement, rounded_up, standard_exclusions, statement
from dpmlm.privacy.stream import SecretStream

__all__ = [
    "ACCOUNTANTS",
    "AccountantFailure",
    "AccountantTable",
    "BandedNoise",
    "Budget",
    "DiscreteGaussian",
    "GridNoise",
    "Ledger",
    "PartitionSelection",
    "PoissonSampler",
    "PrivacyPlan",
    "RenyiFilter",
    "SampledGaussian",
    "SecretStream",
    "Signer",
    "Statement",
    "Verifier",
    "band_coefficients",
    "calibrate",
    "calibrate_steps",
    "describe",
    "epsilon_of",
    "error_of_steps",
    "error_of_sums",
    "gaussian_noise",
    "groups_of",
    "make_plan",
    "noisy_best",
    "rounded_up",
    "standard_exclusions",
    "statement",
]

"""Units, sampling, accounting, noise, and the ledger: what the privacy claim rests on.

Reading order: `plan` (what a run promises), `accountants` and `calibration` (the numbers behind
it), `stream`, `sampling` and `noise` (the coins and the noise; `discrete` and `grid`: noise of
whole numbers), `ledger` (what a corpus may spend: `filter` is its cap, `journal` its file,
`balance` its sums, `admission` its judgement with `headroom`, `summary` what comes of it),
`selection` (words of a private corpus), `statement` (the claim in words; `details` beside them).
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
from dpmlm.privacy.calibration import calibrate, calibrate_steps
from dpmlm.privacy.discrete import DiscreteGaussian
from dpmlm.privacy.filter import RenyiFilter
from dpmlm.privacy.grid import GridNoise
from dpmlm.privacy.journal import Signer, Verifier
from dpmlm.privacy.ledger import Ledger
from dpmlm.privacy.noise import gaussian_noise
from dpmlm.privacy.plan import AccountantTable, PrivacyPlan, make_plan
from dpmlm.privacy.sampling import PoissonSampler
from dpmlm.privacy.selection import PartitionSelection
from dpmlm.privacy.statement import Statement, standard_exclusions, statement
from dpmlm.privacy.stream import SecretStream

__all__ = [
    "ACCOUNTANTS",
    "AccountantFailure",
    "AccountantTable",
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
    "calibrate",
    "calibrate_steps",
    "describe",
    "epsilon_of",
    "gaussian_noise",
    "make_plan",
    "standard_exclusions",
    "statement",
]

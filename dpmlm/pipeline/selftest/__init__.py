"""The self-test: small models are trained with planted faults, and each fault must be found.

Reading order: `world` (what is trained), `faults` (what is broken), `checks` (what looks at the
running code), `runner` (one seed and all of them), `result` (what is printed). All text is made up
here, so nothing in a result is private.
"""

from dpmlm.pipeline.selftest.faults import FAULTS, Fault
from dpmlm.pipeline.selftest.result import SelfTest
from dpmlm.pipeline.selftest.runner import SEEDS, selftest

__all__ = ["FAULTS", "SEEDS", "Fault", "SelfTest", "selftest"]

"""The run file and how it is read."""

from dpmlm.config.loading import load_config, names_run_file, parse_overrides
from dpmlm.config.model import ForgettingConfig
from dpmlm.config.plain import NotPlain, read_plain, read_start, shortened
from dpmlm.config.privacy import LedgerConfig
from dpmlm.config.run import RunConfig
from dpmlm.config.section import claim_fields
from dpmlm.config.telemetry import TelemetryConfig
from dpmlm.config.text import (
    DedupConfig,
    DedupMode,
    NearConfig,
    PassagesConfig,
    PrivateVocabularyConfig,
)

__all__ = [
    "DedupConfig",
    "DedupMode",
    "ForgettingConfig",
    "LedgerConfig",
    "NearConfig",
    "NotPlain",
    "PassagesConfig",
    "PrivateVocabularyConfig",
    "RunConfig",
    "TelemetryConfig",
    "claim_fields",
    "load_config",
    "names_run_file",
    "parse_overrides",
    "read_plain",
    "read_start",
    "shortened",
]

"""The run file and how it is read."""

from dpmlm.config.loading import load_config, parse_overrides
from dpmlm.config.plain import NotPlain, read_plain, shortened
from dpmlm.config.run import (
    DedupConfig,
    DedupMode,
    LedgerConfig,
    NearConfig,
    PassagesConfig,
    PrivateVocabularyConfig,
    RunConfig,
    TelemetryConfig,
    claim_fields,
)

__all__ = [
    "DedupConfig",
    "DedupMode",
    "LedgerConfig",
    "NearConfig",
    "NotPlain",
    "PassagesConfig",
    "PrivateVocabularyConfig",
    "RunConfig",
    "TelemetryConfig",
    "claim_fields",
    "load_config",
    "parse_overrides",
    "read_plain",
    "shortened",
]

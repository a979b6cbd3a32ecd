"""`BenchRequest`: what is to be measured, checked before anything is built."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from dpmlm.errors import UserError

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class BenchModel:
    """The shape of a model with random weights; dropout is off."""

    kind: Literal["bert", "modernbert"]
    """Class of transformers that it is built from."""
    layers: int
    """Number of layers."""
    hidden: int
    """Width; a head has 64."""
    intermediate: int
    """Inner width of a layer's feed-forward part."""
    batch: int
    """Rows a batch at a window of 128 tokens, unless told otherwise."""
    vocabulary: int = 30_522
    """Lines of the embedding, and outputs of the head."""

    def rows(self, window: int) -> int:
        """Rows of about as many tokens in all, whatever the window: at least 1."""
        return max(1, self.batch * 128 // window)


MODELS = {
    "tiny": BenchModel("bert", 2, 128, 512, 32),
    "mini": BenchModel("bert", 4, 256, 1024, 16),
    "small": BenchModel("bert", 4, 512, 2048, 8),
    "base": BenchModel("bert", 12, 768, 3072, 4),
    # ModernBERT-base's make-up (gated feed-forward, rotary positions, two local layers for each
    # global one, norms without bias, own vocabulary) at a size that two cores can run.
    "modernbert": BenchModel("modernbert", 6, 512, 768, 8, vocabulary=50_368),
}
"""Sizes of Turc et al. 2019 (arXiv 1908.08962), BERT-base, and a small ModernBERT."""

COLUMNS = ("plain", "own", "private", "opacus_hooks", "opacus_ghost")
"""Steps that are compared; `plain`, `own` and the two of Opacus are also what ratios are to."""

MORE_COLUMNS = (
    "plain_compiled",
    "plain_recomputed",
    "private_recomputed",
    "private_rows",
)
"""Other ways through the same step, measured where they are named."""

_WINDOW_LIMIT = 8192


@dataclass(frozen=True)
class BenchRequest:
    """One run of `dpmlm bench`; raises UserError for a field out of its range."""

    models: tuple[str, ...] = tuple(MODELS)
    """Names in `MODELS`."""
    windows: tuple[int, ...] = (128, 512)
    """Tokens a row, each 8 to 8192."""
    columns: tuple[str, ...] = COLUMNS
    """Names in `COLUMNS` and `MORE_COLUMNS`."""
    batch: int | None = None
    """Rows a batch; None: the model's own, fewer for longer rows."""
    repeats: int = 7
    """Timed turns after the warm-up."""
    threads: int | None = None
    """CPU threads of torch; None leaves its choice."""
    device: Device = "cpu"
    """Where the steps run."""
    precision: Precision = "float32"
    """Type of matrix products in forward and backward passes; bfloat16 is by autocast."""
    vocabulary: int | None = None
    """Size of every vocabulary instead of the models' own, at least 16."""
    memory: bool = True
    """Whether peak memory is measured, on the CPU in a process of its own for each column."""

    def __post_init__(self) -> None:
        _known("--models", self.models, MODELS)
        _known("--columns", self.columns, COLUMNS + MORE_COLUMNS)
        _known("--device", (self.device,), get_args(Device))
        _known("--precision", (self.precision,), get_args(Precision))
        if not self.windows or not all(8 <= window <= _WINDOW_LIMIT for window in self.windows):
            raise UserError(
                f"--windows {','.join(map(str, self.windows))}",
                f"a row has 8 to {_WINDOW_LIMIT} tokens",
                "for example --windows 128,512",
            )
        for name, least in (("batch", 1), ("repeats", 1), ("threads", 1), ("vocabulary", 16)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} {value}", f"it is at least {least}", "raise it")


def _known(option: str, given: tuple[str, ...], known: Iterable[str]) -> None:
    names = tuple(known)
    for name in given:
        if name not in names:
            raise UserError(f"{option} {name}", "there is none of that name", _list(names))
    if not given:
        raise UserError(option, "it names nothing", _list(names))


def _list(names: tuple[str, ...]) -> str:
    return f"known: {', '.join(names)}"

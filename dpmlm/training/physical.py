"""`PhysicalBatches`: a logical batch, piece by piece, in the memory and the time that there is.

Between two pieces the ranks tell each other whether one was asked to stop and whether one ran out
of memory. Either way the step's noise is not drawn yet: a step that is stopped is given up whole,
and one that ran out of memory begins again from zeroed gradients with the sample it has.
"""

import gc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from dpmlm.clipping import ClipResult
from dpmlm.errors import UserError
from dpmlm.masking import MaskedBatch
from dpmlm.training.interrupts import StopRequest
from dpmlm.training.memory import ran_out
from dpmlm.training.ranks import Ranks
from dpmlm.training.recipe import Recipe
from dpmlm.training.units import View


class StepGivenUp(Exception):
    """A step that was asked to stop before its noise was drawn: charged, and nothing is left."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class PhysicalBatches:
    """Cuts samples into physical batches of at most `rows` rows.

    `rows` changes speed and memory alone: which units are drawn, what each contributes and the
    noise do not depend on it. In bfloat16, where the shape of a batch reaches the gradients
    (`Recipe.fixed_shape`), all batches have one shape and need the same memory, whoever is drawn.
    """

    def __init__(self, recipe: Recipe, ranks: Ranks, stop: StopRequest | None = None) -> None:
        self.recipe, self._ranks = recipe, ranks
        self._stop = StopRequest() if stop is None else stop

    @property
    def rows(self) -> int:
        """Rows at once, at most."""
        return self.recipe.physical_batch_size

    def each(
        self,
        drawn: Sequence[Sequence[View]],
        begin: Callable[[], None],
        work: Callable[[MaskedBatch], ClipResult],
        *,
        step_share: float = 0.0,
    ) -> list[tuple[int, ClipResult]]:
        """(units, result) of `work` on every physical batch of this rank's share.

        `step_share` is the share of the plan's steps that are taken.
        `begin` undoes what `work` left; it is called first, and again where memory ran out on any
        rank and all begin anew with half the rows.

        Raises:
            StepGivenUp: any rank was asked to stop.
            UserError: not even one unit fits.
        """
        while True:
            begin()
            found = self._once(drawn, work, step_share)
            if found is not None:
                return found
            begin()  # gradients of what was done are memory, too
            self._halve()

    def _once(
        self,
        drawn: Sequence[Sequence[View]],
        work: Callable[[MaskedBatch], ClipResult],
        step_share: float,
    ) -> list[tuple[int, ClipResult]] | None:
        """None where memory ran out. As many rounds on every rank, as all hear of each."""
        batches, ranks = self.recipe.micro_batches(drawn), self._ranks
        self._agree(False)
        found = []
        for start in range(0, len(batches), ranks.size):
            full = False
            for units in batches[start : start + ranks.size][ranks.rank :][:1]:
                try:
                    found.append((len(units), work(self.recipe.batch(units, step_share))))
                except (RuntimeError, MemoryError) as error:
                    if not ran_out(error):
                        raise
                    full = True
            if self._agree(full):
                return None
        return found

    def _agree(self, full: bool) -> bool:
        """Whether any rank ran out of memory."""
        said = self._ranks.all((self._stop.signum or 0, full))
        if signum := max(signum for signum, _ in said):
            raise StepGivenUp(signum)
        return any(full for _, full in said)

    def _halve(self) -> None:
        unit = self.recipe.windows_per_draw
        if self.rows <= unit:
            raise UserError(
                f"{unit} rows of {self.recipe.window} tokens at once",
                "memory ran out, and they are one unit, whose rows are clipped together",
                "lower windows_per_draw or the window, set activation_checkpointing, or take a "
                "machine with more memory; the last checkpoint and the ledger's charges stand",
            )
        rows = max(unit, self.rows // 2)
        if self._ranks.first:
            warnings.warn(
                f"memory ran out: {rows} rows at once from here on instead of {self.rows}; set "
                f"training.physical_batch_size to {rows}, and nothing but the speed changes",
                stacklevel=2,
            )
        self.recipe = replace(self.recipe, physical_batch_size=rows)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

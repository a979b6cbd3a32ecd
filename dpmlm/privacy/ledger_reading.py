"""`LedgerReading`: what the entries of a ledger come to, and whether they can be believed.

Nothing is written here; `Ledger` is what charges.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmlm.errors import IntegrityError, UserError
from dpmlm.privacy.balance import Balance, Budget, Run
from dpmlm.privacy.journal import Journal, Signer, Verifier, check_signature
from dpmlm.privacy.replay import replay
from dpmlm.privacy.summary import summarise


class LedgerReading:
    """One ledger file as it stands now; each answer reads what others wrote since."""

    def __init__(self, path: Path, signer: Signer | None = None) -> None:
        self._state = Balance(path)
        self._journal = Journal(path, self._state.apply, signer)

    @property
    def tombstones(self) -> dict[str, Any] | None:
        """`lines` and `head` as last noted; None where nobody was forgotten."""
        self._journal.refresh()
        return self._state.tombstones

    @property
    def imports(self) -> list[dict[str, Any]]:
        """Releases that runs of the corpus continue, each as it was charged."""
        self._journal.refresh()
        return [one.to_json() for one in self._state.imports.values()]

    @property
    def cap(self) -> tuple[float, float]:
        """Epsilon and delta with which the corpus was registered."""
        return self._state.cap.epsilon, self._state.cap.delta

    @property
    def order(self) -> float:
        """Renyi order of the cap, fixed at registration."""
        return self._state.cap.order

    @property
    def corpus(self) -> str:
        """Name under which the corpus was registered."""
        return self._state.corpus

    @property
    def key_id(self) -> str | None:
        """Key that signs every entry; None for a ledger that was registered without one."""
        return self._state.key_id

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._journal.path

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Every entry, read again from the file and its chain checked."""
        return list(self._journal.entries())

    @property
    def run_ids(self) -> list[str]:
        """Runs with a reservation, in the order of their reservations."""
        self._journal.refresh()
        return list(self._state.runs)

    @property
    def head(self) -> dict[str, Any]:
        """Number and hash of the last entry: copy it elsewhere, then a cut file is found."""
        self._journal.refresh()
        return {"number": self._journal.length, "hash": self._journal.head}

    def spent(self) -> Budget:
        """What the entries add up to.

        One private plan alone: its epsilon at all charged steps, the larger of its accountant's and
        PLD's, and those of the releases of other ledgers that are continued. Otherwise the sum of
        divergences converted at the ledger's order.
        """
        self._journal.refresh()
        return self._state.spent()

    def left(self) -> Budget:
        """What may still be spent: the whole cap before the first entry, then divergence.

        Divergence left and epsilon left are one number after the first entry, since they differ
        by a constant in the sum.
        """
        self._journal.refresh()
        return self._state.left()

    def charged_steps(self, run_id: str) -> int:
        """Steps charged in all attempts, repeated ones counted each time."""
        self._journal.refresh()
        return self._run(run_id).charged

    def drawn_steps(self, run_id: str) -> int:
        """The charged ones but those that an early end left undrawn."""
        self._journal.refresh()
        run = self._run(run_id)
        return run.charged - run.forgone

    def kept_steps(self, run_id: str) -> int:
        """Steps of the furthest checkpoint."""
        self._journal.refresh()
        return self._run(run_id).kept

    def committed_steps(self, run_id: str) -> int:
        """Steps that survive in the released model; all charged ones if committed twice."""
        self._journal.refresh()
        return self._run(run_id).committed

    def choices(self) -> list[dict[str, Any]]:
        """Choices among runs of the corpus: label, epsilon, and the number of candidates."""
        self._journal.refresh()
        return list(self._state.choices)

    def verify(
        self,
        *,
        trusted: Mapping[str, Verifier] | None = None,
        head: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the whole file again and check everything that can be checked.

        The chain, the sense of each entry, that the cap admitted it, and its amounts; with
        `trusted` (key id to public key) every signature; with an earlier `head` that its entry
        still stands. Raises IntegrityError naming the line.
        """
        fresh = Balance(self._journal.path)
        seen = False
        for entry in self._journal.entries():
            replay(entry, fresh)
            if trusted is not None:
                check_signature(self._journal.name, entry, trusted)
            seen = seen or (head is not None and entry["hash"] == head["hash"])
        if head is not None and not seen:
            raise IntegrityError(
                f"ledger {self._journal.path}, line {head['number']}",
                "the entry that was noted as its head is gone: the file was cut or rewritten",
                "restore the file from a copy",
            )

    def summary(self, run_id: str) -> dict[str, Any]:
        """What a statement and a gate need to know of the run, after `verify`.

        `epsilon` at `delta` is the claim. While the lineage holds this one plan alone it is the
        epsilon of its committed steps (of the whole plan before a commit), the larger of its
        accountant's and PLD's, and that of a continued release of another ledger. Otherwise it is
        the cap: a filter proves its budget, not the sum spent so far.
        """
        self.verify()
        self._journal.refresh()
        self._run(run_id)
        head = {"number": self._journal.length, "hash": self._journal.head}
        return {**summarise(self._state, run_id), "head": head, "intact": True}

    def _run(self, run_id: str) -> Run:
        run = self._state.runs.get(run_id)
        if run is None:
            raise UserError(
                f"run {run_id!r}",
                f"ledger {self._journal.path} has no reservation for it",
                "reserve the run's plan first",
            )
        return run

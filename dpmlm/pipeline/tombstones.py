"""Persons whose documents no later run on a corpus takes in: `dpmlm runs forget`.

The file lies beside the ledger: hash-chained lines, each with a keyed hash of a person, a date and
a ticket number as the reason. It names nobody, and is of use with the pseudonym key alone. How far
it reaches is noted in the ledger, and in the corpus stage of every run that read it: a file that
was cut or taken away is refused wherever one of the two is at hand.

Whether a document stays depends on its own person and on the file, not on any other document: a
claim on the corpus holds as before, and no public constant of a plan changes.
"""

import hmac
import math
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpmlm.artifacts import load_secret_key, load_signing_key
from dpmlm.config import RunConfig
from dpmlm.corpus import Dropped, pseudonym_of, read_corpus, read_shards
from dpmlm.errors import IntegrityError, UserError
from dpmlm.pipeline.accounts import open_ledger
from dpmlm.pipeline.context import Run
from dpmlm.pipeline.quarantine import holds_since, refuse_undeclared
from dpmlm.pipeline.secrets import RunSecrets, key_check
from dpmlm.privacy import Ledger
from dpmlm.privacy.journal import GENESIS, Journal, create
from dpmlm.release.policy import load_policy

SCHEMA = "dpmlm.tombstones/1"
NOT_REACHED = (
    "a model that was trained with their text, released or not, is not un-trained: the privacy "
    "claim of its run is what bounds what it can tell",
    "bundles that left this machine, and copies of workspaces, corpora and keys in backups",
    "the corpus file itself: delete their rows there too",
    "text of theirs in documents of others, near-duplicates and quotations among them, and "
    "documents that name nobody",
    "public text, gold files, and vocabularies that were drawn before",
)
"""What a tombstone does not do, a line each."""
_NO_LINES = {"lines": 0, "head": GENESIS}
_WHAT = "tombstone file"
_REASON = re.compile(r"[A-Za-z0-9./#-]{1,64}")
"""A ticket number: no room for a name."""


class Tombstones:
    """The forgotten persons of one corpus, in the order they were forgotten."""

    def __init__(self, path: Path, secrets: RunSecrets) -> None:
        """Use `tombstones_of`."""
        self.path = path
        self.dates: list[str] = []
        """When each was forgotten."""
        self.quarantines: dict[int, dict[str, Any]] = {}
        """Lines about sources that are in force, by number; `quarantine.py` reads them."""
        self.private_lines = 0
        """Lines about sources that rest on private text: each is a choice in the ledger too."""
        self._secrets = secrets
        self._numbers: dict[str, int] = {}
        self._heads: list[str] = []
        self._journal = Journal(path, self._apply, None, _WHAT)

    def __len__(self) -> int:
        """How many persons were forgotten."""
        return len(self._numbers)

    @property
    def record(self) -> dict[str, Any]:
        """`lines` and `head`: kept elsewhere, a file that was cut is found."""
        return {"lines": len(self._heads), "head": self._heads[-1]} if self._heads else _NO_LINES

    def hold(self, pseudonym: str | None, *, after: int = 0, until: int | None = None) -> bool:
        """Whether this person was forgotten, on a line after `after`, at the latest on `until`."""
        if pseudonym is None:
            return False
        number = self._numbers.get(self._hash(pseudonym), 0)
        return number > after and (until is None or number <= until)

    def name(self, person: str | None) -> bool:
        """The same of a person as a corpus names them."""
        return bool(self) and person is not None and self.hold(self.pseudonym(person))

    def pseudonym(self, person: str) -> str:
        """Of a person, as stage documents hold it."""
        return pseudonym_of(person, self._secrets.unit_key)

    def without(
        self, rows: Iterable[Mapping[str, Any]], person: str
    ) -> Iterable[Mapping[str, Any]]:
        """The rows of everybody else, by their field `person`, which every row must have."""
        return self._others(rows, person) if self else rows

    def add(self, person: str, reason: str) -> bool:
        """Write a line, on the disk before this returns; False if it stands there already."""
        line = {"person": self._hash(self.pseudonym(person)), "reason": reason}
        return self.write("forget", line, known=lambda: self.name(person))

    def write(self, kind: str, fields: Mapping[str, Any], *, known: Callable[[], bool]) -> bool:
        """Write a line of any kind, on the disk before this returns; False if it is `known`."""
        self._register()
        with self._journal.exclusive():
            new = not known()
            if new:
                self._journal.append(kind, {**fields, "time": _now()})
        return new

    def keyed(self, purpose: str, data: bytes) -> str:
        """A hash under the key of the file, one for each purpose."""
        domain = b"dpmlm/quarantine/" + purpose.encode() + b"\0"
        return hmac.digest(self._secrets.tombstone_key, domain + data, "sha256").hex()

    def refuse_shorter(self, noted: Mapping[str, Any] | None, where: str) -> None:
        """Raise IntegrityError unless the line that was noted elsewhere stands here."""
        if not noted or noted["lines"] == 0:
            return
        if self._heads[noted["lines"] - 1 : noted["lines"]] != [noted["head"]]:
            raise IntegrityError(
                f"tombstone file {self.path}",
                f"it is gone, cut or another one: {where} knows {noted['lines']} lines of it",
                "restore it from a copy; until then nothing is trained on this corpus",
            )

    def read(self) -> "Tombstones":
        """Take in what is on the disk; returns itself. An absent file holds nobody."""
        if self.path.exists():
            self._journal.refresh()
            if not self._heads:
                raise IntegrityError(
                    f"tombstone file {self.path}", "it is empty", "restore it from a copy"
                )
        return self

    def _register(self) -> None:
        """Make the file, unless it is there or another process makes it meanwhile."""
        if self.path.exists():
            return
        try:
            create(self.path, "register", {"schema": SCHEMA, "check": self._check}, None, _WHAT)
        except UserError:
            if not self.path.exists():
                raise

    def _others(
        self, rows: Iterable[Mapping[str, Any]], person: str
    ) -> Iterator[Mapping[str, Any]]:
        for number, row in enumerate(rows, start=1):
            if isinstance(row, Mapping):
                if person not in row:
                    raise UserError(
                        f"documents, row {number}: no field {person!r}",
                        f"persons of this corpus were forgotten ({self.path}), and rows that do "
                        "not say whose they are may be theirs",
                        "give every row its person, or null for nobody's",
                    )
                value = row[person]
                if value is not None and self.name(str(value)):
                    continue
            yield row

    @property
    def _check(self) -> str:
        return key_check(self._secrets.tombstone_key)

    def _hash(self, pseudonym: str) -> str:
        return hmac.digest(self._secrets.tombstone_key, pseudonym.encode(), "sha256").hex()

    def _apply(self, entry: dict[str, Any]) -> None:
        if entry["number"] == 1 and (entry["kind"], entry.get("schema")) != ("register", SCHEMA):
            raise IntegrityError(
                f"tombstone file {self.path}", "it is none", "restore it from a copy"
            )
        if entry["kind"] == "register" and entry["check"] != self._check:
            raise UserError(
                f"tombstone file {self.path}",
                "another pseudonym key made it, and this one finds nobody in it",
                "name the key of this corpus in keys.scrub",
            )
        if entry["kind"] == "forget":
            self._numbers.setdefault(entry["person"], entry["number"])
            self.dates.append(entry["time"])
        if entry["kind"] == "quarantine":
            self.quarantines[entry["number"]] = entry
        if entry["kind"] == "lift":
            self.quarantines.pop(entry["of"], None)
        self.private_lines += entry.get("basis") == "private"
        self._heads.append(entry["hash"])


def tombstones_of(ledger: Ledger, secrets: RunSecrets) -> Tombstones:
    """The tombstones of a corpus, as far as its ledger knows them or further.

    Raises UserError for another pseudonym key, IntegrityError for a broken or shortened file.
    """
    noted = ledger.tombstones  # before the file: a line is written there first
    stones = Tombstones(file_beside(ledger.path), secrets).read()
    stones.refuse_shorter(noted, f"ledger {ledger.path}")
    return stones


def file_beside(ledger: Path) -> Path:
    """Where the tombstones of a corpus are: beside its ledger, `ledger.tombstones.jsonl`."""
    return ledger.with_name(f"{ledger.stem}.tombstones.jsonl")


def refuse_forgotten(run: Run, ledger: Ledger) -> None:
    """Raise UserError where the run's corpus stage holds what is to stay out of later runs: a
    person who was forgotten since, or a source that was quarantined since.

    What a stage made of their text cannot be taken out of it, and results are never mixed. A run
    whose corpus names nobody is refused too once somebody is forgotten.
    """
    stones = tombstones_of(ledger, run.secrets)
    refuse_undeclared(ledger, stones)
    if stones and run.config.corpus.person is None:
        raise UserError(
            "corpus.person null",
            f"{len(stones)} persons of this corpus were forgotten ({stones.path}), and documents "
            "that do not say whose they are may be theirs",
            "name the field with the person in corpus.person, in a new workspace",
        )
    folder = run.finished("corpus")
    if folder is None:
        return
    manifest = folder.manifest or {}
    taken = manifest.get("tombstones", _NO_LINES)
    stones.refuse_shorter(taken, f"workspace {run.workspace.path}")
    if taken["lines"] == stones.record["lines"]:
        return
    if stones and "persons" not in manifest:
        raise _stale(run, "it was made before persons were recorded, and one was forgotten since")
    if stones and any(
        stones.hold(document.get("person"), after=taken["lines"])
        for document in read_shards(folder)
    ):
        raise _stale(run, "its corpus holds text of a person who was forgotten since")
    if holds_since(stones, run.config.corpus.path, read_shards(folder), taken["lines"]):
        raise _stale(run, "its corpus holds text of a source that was quarantined since")


def _stale(run: Run, rule: str) -> UserError:
    return UserError(
        f"workspace {run.workspace.path}",
        f"{rule}; what it charged to the ledger stays charged",
        "run again in a new workspace (--set workspace=...), and remove this one; "
        + second_run(run.config),
    )


def second_run(config: RunConfig) -> str:
    """What a second run on the ledger claims, and what the run file's policy says of that."""
    cap = config.ledger.cap
    claim = (
        f"a second run on a ledger claims the ledger's cap, epsilon {cap.epsilon:g} and delta "
        f"{cap.delta:g}, and its gate looks at that"
    )
    try:
        rules = load_policy(config.release.policy).require
    except UserError:
        return claim
    limits = [rule.max for rule in rules if rule.metric == "ledger.epsilon"]
    allowed = min((limit for limit in limits if limit is not None), default=math.inf)
    if cap.epsilon <= allowed:
        return claim
    return (
        f"{claim}: policy {config.release.policy} allows epsilon {allowed:g}, so its verdict will "
        f"be FAIL. A cap is set when a ledger is registered, and passes where it is at most "
        f"{allowed:g}, as for two runs of epsilon {allowed / 2:g} each"
    )


@dataclass(frozen=True)
class Forgotten:
    """What `dpmlm runs forget` did, or what `--list` found; it names nobody."""

    file: str
    """The tombstone file."""
    persons: int
    """In it."""
    dates: list[str]
    """Of its lines, in order."""
    added: bool | None
    """Whether a line was written; None where nothing was asked for."""
    head: str
    """Lines and hash of the last: noted elsewhere, a cut file is found."""
    second_run: str
    """What a second run on the ledger claims."""
    rows: int | None = field(default=None, repr=False)
    """Of the corpus file that name them. Private: for a terminal alone."""

    def to_json(self) -> dict[str, Any]:
        more = {"not_reached": list(NOT_REACHED)} if self.added is not None else {}
        told = {name: value for name, value in asdict(self).items() if name != "rows"}
        return {**told, **more}

    def text(self) -> str:
        rows = [f"{self.file}: {self.persons} persons forgotten", f"head   {self.head}"]
        if self.added is None:
            return "\n".join([*rows, *(f"  {number}. {when}" for number, when in
                                       enumerate(self.dates, start=1))])  # fmt: skip
        first = "written" if self.added else "they stood there already; nothing was written"
        if self.rows is not None:
            rows.append(f"rows of the corpus file that name them (private): {self.rows}")
        rows += [
            f"{first}: every later run on this ledger drops their documents first, and workspaces "
            "that hold them are refused",
            "this does not reach:",
            *(f"  - {line}" for line in NOT_REACHED),
            self.second_run,
            "next: `dpmlm runs affected` with the run files of this corpus says what there is",
        ]
        return "\n".join(rows)


def forget(config: RunConfig, person: str, reason: str, *, anyway: bool = False) -> Forgotten:
    """Write a tombstone and note it in the ledger; the same person again is no change.

    `reason` is a ticket number, in clear. Raises UserError for one that is none or has a part of
    the name, a corpus that names nobody, a corpus file without a row of theirs or that cannot be
    read (`anyway` passes both over), and as `tombstones_of` does.
    """
    if config.corpus.person is None:
        raise UserError(
            "corpus.person null",
            "a tombstone is found by the person that a document names, and this corpus names none",
            "name the field with the person in the run file",
        )
    _check_reason(reason, person)
    ledger, stones = opened(config)
    rows = None if anyway else _rows(config, stones, person)
    if ledger.key_id is not None:
        ledger.sign_with(load_signing_key(config.keys.signing))
    added = stones.add(person, reason)
    # Also where nothing was added: a kill may have come between the two.
    ledger.note_tombstones(stones.record["lines"], stones.record["head"])
    return _shown(config, stones, added, rows)


def _rows(config: RunConfig, stones: Tombstones, person: str) -> int:
    """How many of the corpus file name them, rows without text too; refused at none."""
    corpus = config.corpus
    wanted, count = stones.pseudonym(person), 0
    for item in read_corpus(corpus.path, text=corpus.text, id=corpus.id, person=corpus.person):
        named = (item.document if isinstance(item, Dropped) else item).person
        count += named is not None and stones.pseudonym(named) == wanted
    if not count:
        raise UserError(
            "the person that was given",
            f"no row of {corpus.path} names them, as the name may be spelled otherwise there",
            "spell it as the corpus does; --anyway forgets whoever is in no row of it",
        )
    return count


def forgotten(config: RunConfig) -> Forgotten:
    """How many persons were forgotten, and when."""
    return _shown(config, opened(config)[1], None)


def opened(config: RunConfig) -> tuple[Ledger, Tombstones]:
    """The ledger of a run file and the file beside it."""
    secrets = RunSecrets.derive(load_secret_key(config.keys.scrub), config.seed)
    ledger = open_ledger(config.ledger)
    return ledger, tombstones_of(ledger, secrets)


def _shown(
    config: RunConfig, stones: Tombstones, added: bool | None, rows: int | None = None
) -> Forgotten:
    head = f"{stones.record['lines']}:{stones.record['head']}"
    more = second_run(config), rows
    return Forgotten(str(stones.path), len(stones), list(stones.dates), added, head, *more)


def _check_reason(reason: str, person: str) -> None:
    """The line stands in clear, for good: one word, and no part of the name among its own."""
    check_ticket(reason)
    # As one letter and as two: Moeller for the ö, Lukasz for the crossed l.
    if any(_holds(reason, name) for name in (person, person.casefold().translate(_AS_TWO))):
        raise UserError(
            "--reason",
            "it holds a part of the person's name, and it stands in clear",
            "give a ticket number without it",
        )


def check_ticket(reason: str) -> None:
    """Raise UserError for a reason that is no ticket number."""
    if not _REASON.fullmatch(reason):
        raise UserError(
            "--reason",
            "it is a ticket number: one word of letters without accents, digits, -, /, . and #, at "
            "most 64",
            "for example --reason request-17/2026",
        )


_AS_TWO = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_LATIN = re.compile(r"LATIN SMALL (?:LETTER|LIGATURE) (?:DOTLESS )?([A-Z]{1,2})(?: WITH .*)?")
_NAMED = {"ð": "d", "þ": "th"}
"""Latin letters whose Unicode name does not say what they are written as."""


def _holds(reason: str, name: str) -> bool:
    """Whether a part of the name stands in the reason."""
    words, parts = _words(reason), _words(name)
    whole = "".join(parts)
    if len(whole) > 2 and not whole.isdecimal() and whole in "".join(words):
        return True
    return not ({part for part in parts if len(part) > 2} | {whole}).isdisjoint(words)


def _latin(letter: str) -> str:
    """A letter as one or two of a to z where its Unicode name says so: ł, ø, đ, ı, æ."""
    if letter.isascii():
        return letter
    found = _LATIN.fullmatch(unicodedata.name(letter, ""))
    return _NAMED.get(letter) or (found[1].lower() if found else letter)


def _words(text: str) -> list[str]:
    """Letters and digits together, whatever their case, accents, width and what parts them."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(_latin(letter) for letter in plain if not unicodedata.combining(letter))
    return re.findall(r"[^\W_]+", plain.casefold())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

"""`dpmlm vocab --public`: a vocabulary of any kind from text that is declared public, as a file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from dpmlm.artifacts import atomic_write
from dpmlm.errors import UserError
from dpmlm.pipeline.data import public_digest, read_public
from dpmlm.tokens import load_tokenizer, tokenizer_digest, train_subwords
from dpmlm.tokens.subwords import Kind


@dataclass(frozen=True)
class PublicVocabulary:
    """What was written; nothing of it is private."""

    output: Path
    kind: str
    entries: int
    digest: str
    """Of the tokenizer: what `dpmlm plan --checklist` and the tokens stage call it."""
    source: str
    """Digest of the public text."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "output": str(self.output)}

    def text(self) -> str:
        return (
            f"wrote {self.output}: {self.kind}, {self.entries} entries, {self.digest}\n"
            f"from public text {self.source}; nothing was charged"
        )


def refuse_kind(kind: str, output: Path, *, public: bool) -> None:
    """Raise UserError for a kind that is none, one that private text cannot have, and a file name
    that cannot hold it."""
    rule = step = None
    if kind not in get_args(Kind):
        rule, step = "a vocabulary is wordpiece, bpe or unigram", "choose one of the three"
    elif not public and kind != "wordpiece":
        rule = "what is selected from private text are words, and of these only WordPiece is made"
        step = "leave --kind out, or name public text with --public"
    elif kind != "wordpiece" and output.suffix != ".json":
        rule, step = f"a vocabulary of this kind is a tokenizer.json, not {output}", "name a .json"
    if rule and step:
        raise UserError(f"--kind {kind}", rule, step)


def public_vocabulary_file(
    source: Path, output: Path, kind: str, *, text: str, size: int, unused: int
) -> PublicVocabulary:
    """Train and write a vocab.txt (WordPiece) or a tokenizer.json, and read it back.

    Raises UserError for an existing output, a broken corpus, and a size without room.
    """
    if output.exists():
        raise UserError(f"output {output}", "it is there already", "name a new one")
    texts = (document.text for document in read_public(source, text))
    tokenizer = train_subwords(cast("Kind", kind), texts, vocab_size=size, unused=unused)
    vocabulary = tokenizer.get_vocab()
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as file:
        if output.suffix == ".json":
            state = json.loads(tokenizer.backend_tokenizer.to_str())
            file.write(json.dumps(state, ensure_ascii=False).encode())
        else:
            pieces = sorted(vocabulary, key=vocabulary.__getitem__)
            file.writelines(piece.encode() + b"\n" for piece in pieces)
    return PublicVocabulary(
        output, kind, len(vocabulary), tokenizer_digest(load_tokenizer(output)),
        public_digest(source),
    )  # fmt: skip

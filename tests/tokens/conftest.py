"""Text, tokenizers and a sealed folder for the tests of tokens."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dpmlm.artifacts import SealedFolder, new_identity
from dpmlm.tokens import train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PUBLIC = [
    "The patient was admitted on Monday and discharged with improved symptoms.",
    "Symptoms improve slowly; the patients were unhappy, and the doctors unhelpful.",
    "Hello world, hello doctor: admission and discharge are discussed daily.",
] * 4


@pytest.fixture(scope="session")
def tokenizer() -> "PreTrainedTokenizerFast":
    return train_tokenizer(PUBLIC, vocab_size=200, unused=7)


@pytest.fixture
def folder(tmp_path: Path) -> SealedFolder:
    return SealedFolder.create(tmp_path / "tokens", [new_identity().recipient], role="tokens")


@pytest.fixture(scope="session")
def documents() -> list[dict[str, object]]:
    """23 documents of 10 units, two of them without a token."""
    made = []
    for i in range(23):
        text = "" if i in (4, 20) else " ".join(PUBLIC[i % 3].split()[: 1 + i % 9])
        unit = f"unit-{i % 10}"
        split = "validation" if i % 10 in (3, 7) else "train"
        made.append(
            {"id": f"doc-{i}", "text": text, "unit": unit, "split": split, "source": "a", "row": i}
        )
    return made

import shutil
from dataclasses import dataclass

import pytest
from transformers import BertConfig, BertForMaskedLM

from dpmlm.cli.main import status_of
from dpmlm.tokens import load_sealed_tokenizer


@dataclass
class Called:
    status: int
    out: str
    err: str


@pytest.fixture
def call(capsys):
    """Run one command in this process, as a person types it."""

    def run(*arguments) -> Called:
        capsys.readouterr()
        status = status_of([str(argument) for argument in arguments])
        return Called(status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(call):
    """Run a command that must be refused: status 2 and one message of three parts."""

    def run(*arguments) -> str:
        called = call(*arguments)
        assert called.status == 2, called.err
        assert called.out == ""
        assert "Traceback" not in called.err
        lines = [line for line in called.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, called.err
        assert "; " in lines[0]
        return lines[0]

    return run


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A finished run to change at will; the current folder."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def decoder(finished, tmp_path):
    """A small BERT set up as a decoder, beside the tokenizer of the finished run."""
    from dpmlm.artifacts import SealedFolder, load_identity

    identity = load_identity(finished[0] / "keys/trainer.key")
    sealed = SealedFolder.open(finished[0] / "work/tokens", [identity])
    tokenizer = load_sealed_tokenizer(sealed)
    folder = tmp_path / "decoder"
    sizes = {"hidden_size": 32, "intermediate_size": 32, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 2, "num_hidden_layers": 1, "is_decoder": True}
    config = BertConfig(vocab_size=len(tokenizer), **sizes, **heads)
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

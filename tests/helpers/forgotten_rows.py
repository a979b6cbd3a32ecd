"""A small corpus in which one person has three rows, and what a run made of it."""

from dpmlm.artifacts import SealedFolder, load_identity
from dpmlm.corpus import read_shards
from dpmlm.privacy import Ledger

NAME = "Zoë Quillfeather-Orme"


def rows() -> list[dict]:
    texts = [{"id": f"d{n}", "text": f"note {n} " + f"river stone {n * 7} " * 6, "author": f"p{n}"}
             for n in range(8)]  # fmt: skip
    for n in (1, 4, 6):
        texts[n]["author"] = NAME
    texts[6]["text"] = ""
    texts[7]["author"] = None
    return texts


def corpus_of(config) -> list[dict]:
    identity = load_identity(config.keys.identity)
    return list(read_shards(SealedFolder.open(config.workspace / "corpus", [identity])))


def ids(config) -> list[str]:
    return [document["id"] for document in corpus_of(config)]


def kinds(config) -> list[str]:
    return [entry["kind"] for entry in Ledger.open(config.ledger.path).entries]


def new_workspace(config, name: str = "again"):
    return config.model_copy(update={"workspace": config.workspace.with_name(name)})

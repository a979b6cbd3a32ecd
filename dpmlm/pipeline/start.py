"""A folder to start from: run file, keys, registered ledger."""

from importlib.resources import files
from pathlib import Path

from dpmlm.artifacts import atomic_write, create_keys
from dpmlm.artifacts.providers import is_reference
from dpmlm.config import load_config
from dpmlm.errors import UserError
from dpmlm.privacy import Ledger


def initialise(folder: Path) -> list[Path]:
    """Write what is missing of run.yaml, keys/ and the ledger that the run file names.

    What exists stays as it is, so a folder that comes with a run file gets keys and a ledger.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(str(folder), "it is a file, and init fills a folder", "name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    run_file = folder / "run.yaml"
    if not run_file.exists():
        template = files("dpmlm.cli").joinpath("templates/run.yaml").read_bytes()
        with atomic_write(run_file) as file:
            file.write(template)
        written.append(run_file)
    config = load_config(run_file)
    keys = config.keys.identity.parent
    if not is_reference(config.keys.identity) and not config.keys.identity.exists():
        written += create_keys(keys)
    for path in (config.keys.identity, config.keys.signing, config.keys.scrub):
        if not is_reference(path) and not path.exists():
            raise UserError(
                f"{run_file}: key file {path}",
                "there is no such file, and init draws trainer.key, sign.key and pseudonym.key",
                "use those names in the run file, or put your own key there",
            )
    ledger, cap = config.ledger.path, config.ledger.cap
    if not ledger.exists():
        ledger.parent.mkdir(parents=True, exist_ok=True)
        Ledger.register(ledger, epsilon=cap.epsilon, delta=cap.delta, corpus=config.name)
        written.append(ledger)
    return [shortest(path) for path in written]


def shortest(path: Path) -> Path:
    """The path from the current folder where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

"""`python -m audits MODEL_DIR --canaries FILE`: an audit with nothing of the trainer around it."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from dpmlm.artifacts import IntegrityError, UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """0 for PASS, 1 for FAIL and INCONCLUSIVE, 2 where the audit could not be run."""
    options = _parser().parse_args(arguments)
    from transformers.utils import logging

    from audits.attack import attack
    from dpmlm.artifacts import load_identity

    logging.disable_progress_bar()
    try:
        done = attack(
            options.model,
            canaries=options.canaries,
            labels=options.labels,
            commitment=options.commitment,
            plan=options.plan,
            out=options.out,
            transcript=options.transcript,
            control=options.control,
            untrained=options.untrained,
            reference=options.reference,
            identities=[load_identity(options.identity)] if options.identity else [],
            beta=options.beta,
            device=options.device,
            progress=_progress if sys.stderr.isatty() else None,
        )
    except (UserError, IntegrityError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 70
    print(done.text())
    return 0 if done.verdict.word == "PASS" else 1


def _progress(done: int, total: int) -> None:
    end = "\n" if done >= total else ""
    print(f"\raudit {done} of {total} rows", end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m audits",
        description="Attack any Hugging Face masked language model trained with known canaries.",
        epilog="Draw canaries before training with `dpmlm audit canaries plan`. Exit status: 0"
        " PASS, 1 FAIL or INCONCLUSIVE, 2 bad input.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="model to attack")
    parser.add_argument("--canaries", type=Path, required=True, help="canary file or sealed folder")
    parser.add_argument("--labels", type=Path, help="who was included; beside the canaries")
    parser.add_argument("--commitment", type=Path, help="what was published before training")
    parser.add_argument("--plan", type=Path, help="JSON with epsilon, delta, noise_multiplier, "
                        "sample_rate and steps; looked for beside the model")  # fmt: skip
    parser.add_argument("--control", type=Path, help="the same training without privacy")
    parser.add_argument("--untrained", type=Path, help="the model before training")
    parser.add_argument("--reference", type=Path, help="a public masked language model")
    parser.add_argument("--identity", type=Path, help="private key for sealed folders")
    parser.add_argument("--beta", type=float, default=0.05, help="false alarms of all tests")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N, or auto: CUDA if any")
    parser.add_argument(
        "--out", type=Path, default=Path("evidence.json"), help="where evidence goes"
    )
    parser.add_argument(
        "--transcript", type=Path, help="where all scores go before labels are opened; beside --out"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

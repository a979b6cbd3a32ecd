"""The axes of `dpmlm masks compare`, from what is typed."""

from typing import Any, get_args

from dpmlm.config.masking import MaskingConfig
from dpmlm.errors import UserError
from dpmlm.pipeline.grid.axes import Axis


def masking_axes(ratios: str | None, strategies: str | None, static: str | None) -> list[Axis]:
    """Axes over `masking`: ratios as numbers or schedules START:END, strategies by name or `all`,
    static yes, no or both. What is not given is not varied. Raises UserError."""
    axes = []
    if strategies is not None:
        axes.append(Axis("masking.strategy", tuple(_strategies(strategies))))
    if ratios is not None:
        values = tuple(_ratio(part) for part in ratios.split(","))
        axes.append(Axis("masking.ratio", values, second="masking.ratio_end"))
    if static is not None:
        axes.append(Axis("masking.static", _static(static)))
    return axes


def known_strategies() -> tuple[str, ...]:
    """Of the run file, in its order."""
    return tuple(get_args(MaskingConfig.model_fields["strategy"].annotation))


def _strategies(given: str) -> tuple[str, ...]:
    if given == "all":
        return known_strategies()
    found = tuple(part.strip() for part in given.split(","))
    for name in found:
        if name not in known_strategies():
            raise UserError(
                f"--strategies {name}",
                f"there is no such strategy, but {', '.join(known_strategies())}",
                "name some of these, or all",
            )
    return found


def _ratio(given: str) -> Any:
    """Refused here where the run file would not take it: what it says is something else."""
    start, schedule, end = given.partition(":")
    try:
        found = (float(start), float(end)) if schedule else float(start)
    except ValueError:
        raise _no_ratio(given, "a ratio is a number, or START:END") from None
    if not all(0 < share < 1 for share in (found if isinstance(found, tuple) else (found,))):
        raise _no_ratio(given, "a ratio is a share of the tokens, above 0 and below 1")
    return found


def _no_ratio(given: str, rule: str) -> UserError:
    return UserError(f"--ratios {given}", rule, "for example 0.15,0.3:0.15")


def _static(given: str) -> tuple[bool, ...]:
    answers = {"yes": (True,), "no": (False,), "both": (False, True)}
    if given not in answers:
        raise UserError(f"--static {given}", "it is yes, no or both", "give one of these")
    return answers[given]

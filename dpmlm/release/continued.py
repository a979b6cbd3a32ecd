"""The release that a bundle's model was trained further from: what of it its plan has to bind."""

from collections.abc import Mapping
from typing import Any

from dpmlm.privacy.ancestor import Ancestor, ancestor_of
from dpmlm.release.consistency import Contents
from dpmlm.release.inventory import GET_ORIGINAL, Finding, release_digest

UNCHECKED = (
    "that the release which it continues promises what its plan says was not checked: "
    "`dpmlm verify BUNDLE --trusted-keys DIR --continues EARLIER`"
)


def promised(manifest: Mapping[str, Any], contents: Contents) -> Ancestor:
    """What a plan binds, and a ledger charges, of the release with these public files.

    Its epsilon and delta are those of its statement, which hold what it continued itself. Raises
    ValueError for one that promises nothing.
    """
    former = ancestor_of(contents.plan)
    return Ancestor(
        release=release_digest(manifest["files"]),
        model=str(manifest["model_digest"]),
        run_id=str(manifest["run_id"]),
        plan=contents.plan.digest,
        corpus=str(contents.ledger["corpus"]),
        trainings=1 + (former.trainings if former else 0),
        epsilon=float(contents.statement["epsilon"]),
        delta=float(contents.statement["delta"]),
    )


def check_continued(
    contents: Contents, earlier: tuple[Mapping[str, Any], Contents] | None
) -> tuple[list[Finding], list[str]]:
    """Findings and notes on what a bundle's plan says of the release that it continues, held
    against that release's own manifest and files, where they are at hand."""
    bound = ancestor_of(contents.plan)
    if earlier is None:
        return [], [] if bound is None else [UNCHECKED]
    if bound is None:
        return [_wrong("it continues no release, and one was named")], []
    try:
        found = promised(*earlier)
    except ValueError as error:
        return [_wrong(f"the release that was named cannot be continued: {error}")], []
    if found.release != bound.release:
        what = (
            f"it continues release {bound.release}, and the one that was named is {found.release}"
        )
        return [_wrong(what)], []
    theirs, said = found.to_json(), bound.to_json()
    wrong = [
        _wrong(f"it binds {name} {said[name]}, the release says {value}")
        for name, value in theirs.items()
        if said[name] != value
    ]
    if earlier[1].decision.verdict != "PASS":
        wrong.append(_wrong("the release that it continues did not pass its gate"))
    told = f"it continues release {found.release}, and binds what that one promises"
    return wrong, [] if wrong else [told]


def _wrong(what: str) -> Finding:
    return Finding("plan.json", "continued release", what, GET_ORIGINAL)

"""Who could open the former bundle, beside who will open the one that takes its place.

`dpmlm keys rotate` can add people to a bundle whom the run file does not name, and whoever can
write the run file or a .pub file can add themselves; a run that makes the bundle again goes by the
run file alone, and says before who comes and who goes.
"""

from pathlib import Path

from dpmlm.errors import UserError
from dpmlm.pipeline.context import Run
from dpmlm.release.inventory import MANIFEST
from dpmlm.release.signed import open_signed

_PLACES = {"consumers": "release.recipients", "keep": "release.auditors"}
"""Fields of the run file, by kind."""


def tell_changed_openers(run: Run, bundle: Path, *, passed: bool) -> None:
    """A line with the key ids of those who newly can open it, and one of those who no more can.

    Consumers come where it `passed` alone. Of a bundle that this run's key did not sign nothing is
    said: anybody may have written it.
    """
    listed = _listed(run, bundle)
    if not listed:
        return
    named = {
        "consumers": {recipient.key_id for recipient in run.consumers},
        "keep": {recipient.key_id for recipient in run.keepers},
    }
    coming = [
        f"{key_id} (of {_PLACES[kind]})"
        for kind in _PLACES
        if passed or kind == "keep"
        for key_id in sorted(named[kind] - set(listed.get(kind, ())))
    ]
    going = [
        f"{key_id} (to keep it, add its .pub file to {_PLACES[kind]})"
        for kind in _PLACES
        for key_id in sorted(set(listed.get(kind, ())) - named[kind])
    ]
    for who, what in ((coming, "newly open for"), (going, "no more open for")):
        if who:
            run.progress.say(
                "warning: the bundle is made again as the run file says, and will "
                f"{what} {', '.join(who)}"
            )


def _listed(run: Run, bundle: Path) -> dict[str, list[str]]:
    """Key ids by kind, as the signed manifest lists them; empty where there is no such bundle."""
    key = run.signing
    try:
        payload, _ = open_signed(bundle / MANIFEST, {key.key_id: key.verify_key})
        return {kind: list(ids) for kind, ids in payload["predicate"]["recipients"].items()}
    except (OSError, UserError, KeyError, TypeError, AttributeError):
        return {}

"""The model card: one page of Markdown with the failures on it."""

from typing import Any

from dpmlm.release import words
from dpmlm.release.report import ReportData, _environment


def model_card(data: ReportData, *, intended_use: str = "", base: str = "") -> str:
    """A card for a bundle: verdict, promise, attacks, limits; nothing private.

    `intended_use` and `base` (what the model was trained from) are the releaser's words.
    """
    decision = data.decision.public()
    target: dict[str, Any] = dict(((data.evidence or {}).get("subjects") or {}).get("target") or {})
    page = _environment().get_template("model_card.md.j2")
    return page.render(
        data=data,
        decision=decision,
        headline=words.headline(decision),
        summary=words.summary(decision),
        open_rules=words.unmet(decision),
        intended_use=intended_use,
        base=base,
        gating=words.gating_words(target["gating"]) if target.get("gating") else "",
        exposure=words.exposure_words(target["exposure"]) if target.get("exposure") else "",
        extraction=(
            words.extraction_words(target["canary_extraction"])
            if target.get("canary_extraction")
            else ""
        ),
        power=(data.evidence or {}).get("power") or {},
        not_run=[
            entry
            for entry in (data.evidence or {}).get("attacks") or []
            if entry["status"] != "RUN"
        ],
    )

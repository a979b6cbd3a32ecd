"""What an audit did not try: an attack that is not listed as run was not run."""

_ALWAYS = (
    (
        "membership inference on real records (LiRA, RMIA, reference-calibrated loss)",
        "membership was randomised for canaries only; the gating test and lower bounds use those",
    ),
    ("membership inference at person level", "no person's membership was randomised"),
    ("extractable PII game", "no tagger was run over sampled text"),
    ("reconstructable and inferable PII games", "no candidate lists for people were built"),
    (
        "probabilistic extraction by sampling (Gibbs, temperature, n tries)",
        "decoding was greedy; 1 - (1 - p)^n was not estimated",
    ),
    ("beam search and confidence-first decoding", "decoding was greedy, left to right"),
    (
        "white-box gradient canaries",
        "scores come from the released model alone, not from a transcript of noised sums",
    ),
    ("several independent trainings", "one model was audited, in one run"),
    ("canaries of other families, and inserted before scrubbing", "one family, exempt arm only"),
    ("attribute inference", "no attribute labels were declared"),
    ("model inversion and reconstruction from weights", "no such attack is implemented"),
    ("exfiltration through the serving side", "the audit reads a model, not a deployment"),
)


def not_run(*, canaries: bool, control: bool, verbatim: bool) -> list[dict[str, str]]:
    """Attacks that were not run, each with its reason, in a fixed order."""
    entries = [{"attack": attack, "reason": reason} for attack, reason in _ALWAYS]
    if not canaries:
        entries.append(
            {"attack": "exposure, canary extraction, gating test", "reason": "no canaries"}
        )
    if not control:
        entries.append({"attack": "non-private control", "reason": "no control model was given"})
    if not verbatim:
        entries.append(
            {"attack": "verbatim extraction of training spans", "reason": "no spans were given"}
        )
    return entries

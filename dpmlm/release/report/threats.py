"""Who might attack, what stands against them, and what remains; for the report and the docs."""

from typing import NamedTuple


class Threat(NamedTuple):
    """One adversary."""

    adversary: str
    """Who, and what they have."""
    control: str
    """What stands against them."""
    remains: str
    """What they can do all the same."""
    tests: tuple[str, ...]
    """Tests that show it, FILE::NAME below tests/."""
    command: str
    """The command that checks or applies the control."""


THREATS = (
    Threat(
        "Stolen disk or bucket",
        "Texts, shards, checkpoints and weights are encrypted; so are the names and shapes of "
        "tensors.",
        "Sizes and times of files, names of stages, and who can open them (key ids).",
        (
            "pipeline/test_pipeline_clear.py::test_no_sentence_of_the_corpus_lies_in_clear_after_a_run",
            "release/test_release_bundle.py::test_no_plaintext_of_the_model_is_ever_written",
        ),
        "dpmlm keys show",
    ),
    Threat(
        "Somebody who changes, cuts, swaps or puts back files",
        "Every chunk is authenticated, every file of a bundle is listed in a signed manifest, the "
        "release log tells an older bundle from the newest, a registry’s signed lines say what an "
        "alias means, and heads that were noted elsewhere find what was cut off or written anew.",
        "Without the log an older bundle, whole and signed, verifies. Ledger, release log, "
        "registry and tombstones can be put back, all copies of them together, to the last head "
        "that was noted elsewhere.",
        (
            "release/test_release_verification.py::test_random_changes_and_truncations",
            "release/test_release_verification.py::test_a_bundle_signed_again_by_a_stranger_is_refused",
            "artifacts/test_artifacts_folder.py::test_an_older_version_of_a_file_is_refused",
            "pipeline/test_pipeline_signed_ledger.py::test_a_noted_head_finds_lines_that_were_cut_off",
            "release/test_release_logged.py::test_the_log_tells_the_newest_release_from_an_older_one",
            "release/test_release_logged.py::test_a_log_that_was_written_anew_is_found_against_noted_heads",
            "release/registry/test_registry_journal.py::test_a_journal_that_was_cut_is_found_by_a_noted_head",
            "pipeline/tombstones/test_tombstones_file.py::test_a_file_that_was_cut_or_changed_is_refused_by_whoever_needs_it",
        ),
        "dpmlm log verify",
    ),
    Threat(
        "Former recipient",
        "The key of an artifact is wrapped anew without them; a key in a KMS obeys its policy.",
        "What they opened or copied while they could: to take away a recipient is no revocation.",
        (
            "artifacts/test_artifacts_folder.py::test_rewrap_changes_who_can_open_and_nothing_else",
            "release/test_release_rewrap.py::test_a_rotated_bundle_is_signed_again_and_nothing_else_changes",
        ),
        "dpmlm keys rotate",
    ),
    Threat(
        "Careless engineer",
        "The plan is fixed before the first step, the ledger refuses what the budget does not "
        "hold, unknown settings are refused, each figure has a label, the consumers’ key is "
        "wrapped on PASS alone, and an export in clear is logged before it is written.",
        "Whoever is root on the training host can read its memory. Whoever can write the run file "
        "or the public keys that it names decides who opens the next bundle; the run names who "
        "newly can. Who loads a model in Python, or copies an export, is not logged.",
        (
            "config/test_config_loading.py::test_an_unknown_key_names_the_nearest_known_one",
            "privacy/test_privacy_ledger.py::test_a_larger_budget_than_the_cap_is_refused",
            "telemetry/test_telemetry_sinks.py::test_only_what_the_clearance_allows_is_shown",
            "release/test_release_bundle.py::test_consumers_cannot_open_what_has_not_passed",
            "release/test_release_exports.py::test_nothing_is_written_where_it_cannot_be_logged",
        ),
        "dpmlm plan",
    ),
    Threat(
        "Dishonest trainer",
        "The signed bundle is judged again by whoever verifies it: the gate, the epsilon and the "
        "conclusions of the audits. Another model than the judged one is found when it is opened. "
        "The policy is named with its digest; a reader can ask for one (--policy). An auditor and "
        "an approver countersign with keys of their own; a reader can require it.",
        "A policy of their own, which a reader who asks for none is only told of. "
        "Figures that nobody else can compute: without attested hardware the host can lie about "
        "its data, its noise and its audits; provenance is its word.",
        (
            "release/test_release_consistency.py::test_a_decision_edited_to_pass_is_found_even_when_the_signer_signs_it",
            "release/test_release_consistency.py::test_an_epsilon_that_plan_and_ledger_do_not_give_is_found",
            "release/test_release_bundle.py::test_a_signer_who_seals_something_else_is_found_by_whoever_opens",
            "release/test_release_asked.py::test_whoever_asks_for_a_policy_gets_that_one",
            "release/countersigning/test_countersigning_attest.py::test_a_statement_that_is_gone_is_missed_by_who_needs_it",
        ),
        "dpmlm verify",
    ),
    Threat(
        "The model’s recipient",
        "Differential privacy limits what the weights give away; audits attack them before "
        "release.",
        "What the promise does not cover. Audits are lower bounds and never proof.",
        (
            "release/test_release_gate.py::test_a_test_that_rejects_the_target_fails_it",
            "release/test_release_gate.py::test_a_missing_part_never_passes",
        ),
        "dpmlm audit",
    ),
    Threat(
        "Somebody who stores today to decrypt with a quantum computer later",
        "Keys are wrapped by a hybrid of ML-KEM-768 and X25519, never beside a classical one.",
        "The standard of the hybrid is a draft. Keys made as X25519 and KMS keys are as good as "
        "theirs; signatures are classical.",
        (
            "artifacts/test_artifacts_keys.py::test_wrapped_key_lengths_and_binding",
            "artifacts/test_artifacts_keys.py::test_mixed_kinds_are_refused",
        ),
        "dpmlm keys new",
    ),
)

LIMITS = (
    "Python cannot promise to overwrite memory: keys and text may stay in memory, and in swap, "
    "until the process ends. Encrypt the swap of the training host.",
    "The command line forbids core dumps to itself and to what it starts. Who calls the library "
    "from a program of their own has to do so there (ulimit -c 0).",
    "Sizes of files and the times at which they were written are visible to whoever sees the disk.",
    "A bundle has no expiry: an old one, whole and signed, verifies. The release log, and heads of "
    "it that were noted elsewhere, show which is the newest.",
    "A person who is forgotten stays in models that were trained before: the promise bounds what "
    "such a model can tell of them.",
)
"""What holds against none of them."""

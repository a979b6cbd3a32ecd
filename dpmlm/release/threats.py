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
        "Every chunk is authenticated, every file of a bundle is listed in a signed manifest, and "
        "a head of the ledger that was noted elsewhere finds lines that were cut off.",
        "An older bundle, whole and signed, verifies: compare its date. A ledger can be put back "
        "to the last head that was copied elsewhere.",
        (
            "release/test_release_verification.py::test_random_changes_and_truncations",
            "release/test_release_verification.py::test_a_bundle_signed_again_by_a_stranger_is_refused",
            "artifacts/test_artifacts_folder.py::test_an_older_version_of_a_file_is_refused",
            "pipeline/test_pipeline_signed_ledger.py::test_a_noted_head_finds_lines_that_were_cut_off",
        ),
        "dpmlm ledger verify",
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
        "hold, unknown settings are refused, each figure has a label, and the consumers’ key is "
        "wrapped on PASS alone.",
        "Whoever is root on the training host can read its memory.",
        (
            "config/test_config_loading.py::test_an_unknown_key_names_the_nearest_known_one",
            "privacy/test_privacy_ledger.py::test_a_larger_budget_than_the_cap_is_refused",
            "telemetry/test_telemetry_sinks.py::test_only_what_the_clearance_allows_is_shown",
            "release/test_release_bundle.py::test_consumers_cannot_open_what_has_not_passed",
        ),
        "dpmlm plan",
    ),
    Threat(
        "Dishonest trainer",
        "The signed bundle is judged again by whoever verifies it: the gate, the epsilon and the "
        "conclusions of the audits. Another model than the judged one is found when it is opened.",
        "Figures that nobody else can compute: without attested hardware the host can lie about "
        "its data, its noise and its audits.",
        (
            "release/test_release_verification.py::test_a_decision_edited_to_pass_is_found_even_when_the_signer_signs_it",
            "release/test_release_verification.py::test_an_epsilon_that_plan_and_ledger_do_not_give_is_found",
            "release/test_release_bundle.py::test_a_signer_who_seals_something_else_is_found_by_whoever_opens",
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
    "A bundle has no expiry: an old one, whole and signed, verifies. Dates and digests that were "
    "noted elsewhere show which is the newest.",
)
"""What holds against none of them."""

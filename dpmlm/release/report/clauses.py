"""What guidance asks of such a report, clause by clause: what is said, and where it stands.

The list is an index for a reader; it is no finding about any law. What nothing in a release
delivers is said with its reason. Places are those of `pointers`.
"""

from typing import NamedTuple


class Clause(NamedTuple):
    """One thing that is asked for."""

    asks: str
    """What for, in a few words."""
    says: str
    """The answer in a sentence; empty where there is none."""
    where: tuple[str, ...] = ()
    """Where the answer stands."""
    lacks: str = ""
    """What is not delivered, and why; empty where nothing is missing."""


class Guidance(NamedTuple):
    """One document, and what it asks for."""

    source: str
    """Its name."""
    gist: str
    """What it is about, for somebody who never read it."""
    clauses: tuple[Clause, ...]
    """In its own order."""


_ALWAYS = (
    Clause(
        "digests of weights, data and configuration",
        "A digest is a fingerprint: change one byte and it is another. Data are fingerprinted as "
        "sealed, so that nobody can try out a guess at the text.",
        ("training.model_digest", "plan.digest", "#digests"),
    ),
    Clause(
        "the version of the code",
        "A digest of all source files that trained the model, and the versions of the libraries.",
        ("#digests", "evidence.versions", "statement.versions"),
        "the commit: an installed package does not know from which one it was made",
    ),
    Clause(
        "seeds, sealed",
        "The keys of sampling and noise come from the operating system, anew for each attempt, and "
        "are not kept; planted secrets and their coins were sealed before training, under the "
        "commitment named here.",
        ("plan.noise_seed", "evidence.declared.commitment", "docs/architecture.md#randomness"),
    ),
    Clause(
        "tests declared against tests run",
        "The tests that may accuse the model were fixed before any score; the table of them says "
        "which could be run.",
        ("evidence.declared.tests", "#declared-tests", "#every-attack"),
    ),
    Clause(
        "how many were tried, with intervals",
        "An interval says where the true share lies, 19 times in 20.",
        (
            "evidence.subjects.target.gating.canaries",
            "evidence.subjects.target.gating.accuracy_interval",
            "evidence.subjects.target.canary_extraction.n",
            "evidence.subjects.target.canary_extraction.ci",
        ),
    ),
    Clause(
        "error budget spent",
        "The chance that the tests together accuse a model which keeps its promise is at most "
        "beta. All of it is spent on the declared tests; what else was tried is outside.",
        ("evidence.declared.beta", "evidence.declared.correction"),
    ),
    Clause(
        "ceilings",
        "The most that an attack could have shown if all its guesses had been right, and the "
        "highest mean exposure that the promise allows.",
        (
            "evidence.subjects.target.lower_bound.one_run_ceiling",
            "evidence.subjects.target.exposure.ceiling_bits",
        ),
    ),
    Clause(
        "waivers with signer and expiry",
        "An approver may waive a rule that was measured and does not hold, for this one model, in "
        "a signed file. Each waived rule is named beside the verdict with signer, reason and "
        "expiry; where none is named there, none was given.",
        ("#rules", "decision.waivers", "policy.yaml"),
    ),
    Clause(
        "the verdict",
        "PASS, FAIL or INCONCLUSIVE, by a policy that is part of the bundle.",
        ("decision.verdict", "decision.policy", "policy.yaml"),
    ),
)

_NIST = (
    Clause(
        "epsilon, delta and variant",
        "Epsilon is the limit, delta the slack of the promise.",
        ("statement.epsilon", "statement.delta", "statement.details.variant"),
    ),
    Clause(
        "parameters to convert the promise into another variant",
        "Noise, rate and steps, the Renyi divergences of the whole training at six orders, and "
        "epsilon by three accountants (PRV, PLD, RDP).",
        (
            "plan.noise_multiplier",
            "plan.sample_rate",
            "plan.steps",
            "statement.details.renyi",
            "statement.epsilon_by_accountant",
            "docs/claim.md#how-to-recompute-it",
        ),
    ),
    Clause(
        "unit and adjacency",
        "Whom the promise protects, and which two corpora are compared.",
        ("statement.unit", "statement.details.adjacency"),
    ),
    Clause(
        "contribution bound",
        "The most that one unit can put into one step, however much text it has: rows, tokens a "
        "row, and the length that its gradient is cut to.",
        (
            "statement.details.contribution_bound.rows_of_a_unit_in_a_step",
            "statement.details.contribution_bound.tokens_of_a_row",
            "plan.max_grad_norm",
        ),
    ),
    Clause(
        "no comparison across units",
        "An epsilon a person and one a document or a row say nothing about each other: compare "
        "this promise with others about the same unit only.",
        ("statement.unit", "docs/claim.md#what-stands-beside-the-sentence"),
    ),
    Clause(
        "why the unit fits free text that mentions third parties",
        "A person who is named in somebody else's text is no unit of their own: what is "
        "promised about them is what is promised about each unit that names them, and weaker the "
        "more of these there are. Scrubbing takes out the names it finds; the promise does not "
        "rest on it.",
        ("statement.not_covered", "docs/claim.md#what-is-not-promised"),
        "why that is enough for this text: whoever owns the corpus knows who is named in it",
    ),
    Clause(
        "other releases from the same data: the vocabulary",
        "A vocabulary made from private text is charged and named here with its budget; “none” "
        "means that it came from public text.",
        ("statement.vocabulary", "statement.lineage.selections"),
    ),
    Clause(
        "other releases from the same data: counts of duplicates and of scrubbing",
        "They are for the auditor and are not released. Whether one record could decide over "
        "another is in the scope of the promise.",
        ("statement.scope", "statement.not_covered"),
    ),
    Clause(
        "other releases from the same data: metrics",
        "Loss, figures on held-out text and tests on real text are for the auditor; what is "
        "released is the list in the sentence of the promise.",
        ("statement.what", "#training"),
    ),
    Clause(
        "other releases from the same data: tuning runs",
        "Every run on the corpus is charged to its ledger, the discarded ones too, and so is "
        "choosing among them.",
        ("statement.lineage.runs", "statement.choices", "ledger.choices_charged"),
        "runs that were charged to no ledger or to another one: nobody can see those here",
    ),
    Clause(
        "libraries and versions, custom code",
        "What the promise rests on that is not a library's is listed by module.",
        ("statement.versions", "statement.details.custom_code"),
    ),
    Clause(
        "sampling assumption",
        "Each unit is drawn for each step by a coin of its own; the sampler that runs is the one "
        "that is accounted.",
        ("statement.sampler", "plan.units"),
    ),
    Clause(
        "utility",
        "How well the model guesses hidden words of text that was held out, before and after "
        "training: in the auditor's copy, as it is computed from private text.",
        ("#training",),
        "figures of a task of the consumer's, which a run does not know",
    ),
    Clause(
        "effect on subgroups",
        "",
        (),
        "a run file declares no groups, so nothing is measured by group. Noise and clipping cost "
        "rare kinds of text most: measure it on labelled text of your own",
    ),
    Clause(
        "memorisation",
        "Whether planted secrets, and real text, can be got back out of the model.",
        (
            "evidence.subjects.target.exposure.mean_bits",
            "evidence.subjects.target.canary_extraction.extracted",
            "#attacks",
        ),
    ),
    Clause(
        "release against query model",
        "Weights are released, so that using them costs nothing more.",
        ("statement.details.release_model",),
    ),
    Clause(
        "trust",
        "Who sees the text, and who has to be believed.",
        ("statement.details.trust", "docs/claim.md#what-is-not-promised"),
    ),
    Clause(
        "floating point",
        "The proof is about real numbers; what the rounding of the computer's leaves open is "
        "excluded in the promise and described.",
        (
            "statement.details.mechanism.noise",
            "statement.not_covered",
            "docs/claim.md#what-is-thin",
        ),
        "a bound on the rounding of the clipped sum: none is known to us for it",
    ),
    Clause(
        "randomness",
        "The generator of the noise, by name; noise with a seed that somebody could know never "
        "passes.",
        ("plan.noise_source", "plan.noise_seed", "docs/architecture.md#randomness"),
    ),
    Clause(
        "side channels",
        "Timing and use of resources are excluded in the promise.",
        ("statement.not_covered", "docs/claim.md#what-is-thin"),
        "protection against them: how long a step takes depends on what was drawn, and is not "
        "hidden from whoever watches the machine",
    ),
    Clause(
        "encryption",
        "Text, checkpoints and weights lie encrypted on the disk from the first stage to the "
        "bundle.",
        ("manifest.files", "docs/architecture.md#what-lies-in-a-workspace"),
    ),
    Clause(
        "keys and access",
        "Key ids of all who can open the model; consumers are among them on PASS alone.",
        ("manifest.recipients.keep", "manifest.recipients.consumers", "#rules"),
        "who holds those keys, and how they are guarded",
    ),
    Clause(
        "minimisation",
        "What is taken out before training: identifiers by the scrub policy, duplicates, and all "
        "text of a unit beyond what is drawn of it.",
        (
            "training.scrub_policy",
            "training.near_duplicates",
            "training.repeated_passages",
            "docs/data.md#what-is-replaced-and-the-log-of-it",
        ),
        "whether the corpus as a whole is needed for the purpose: its owner's to say",
    ),
)

_EDPB = (
    Clause(
        "each attack, run or not run",
        "Tests are evidence of resistance to the attacks that were run, and to no others. Scope, "
        "frequency, quantity and quality stand in the next table.",
        ("evidence.attacks", "#kinds-of-attack", "#every-attack"),
    ),
    Clause(
        "context of release",
        "Who may open the model, under which policy; weights in the hands of people who may try "
        "anything on them, for as long as they like.",
        ("decision.summary", "manifest.recipients.consumers", "statement.details.release_model"),
        "what the model is used for, and what those people have beside it",
    ),
    Clause(
        "inputs to an impact assessment",
        "A table of what this run knows, to be copied.",
        ("#assessment",),
        "purpose, legal basis and necessity, which are the controller's to state",
    ),
)

_AI_ACT = (
    Clause(
        "training data",
        "The corpus by the digest of its sealed form, how it was scrubbed and which duplicates "
        "were removed.",
        ("#digests", "training.scrub_policy", "training.near_duplicates"),
        "origin, selection and suitability of the text: its owner describes these",
    ),
    Clause(
        "test data",
        "Held-out units, drawn by a keyed hash before training, and planted secrets whose coins "
        "were committed to beforehand.",
        ("evidence.declared.commitment", "docs/architecture.md#randomness"),
    ),
    Clause(
        "metrics",
        "The declared tests and their error budget; loss and accuracy on held-out text are in the "
        "auditor's copy.",
        ("evidence.declared.tests", "evidence.declared.beta", "#training"),
    ),
    Clause(
        "dated and signed test logs",
        "The decision is dated; one signature covers the digests of this page, the evidence and "
        "every other file; the ledger is a chain in which no line can be changed unseen.",
        ("decision.decided", "manifest.created", "manifest.dsse.json", "ledger.head"),
    ),
    Clause(
        "limits",
        "What the promise does not cover, what was not tested, and what is thin.",
        ("statement.not_covered", "#every-attack", "docs/claim.md#what-is-thin"),
    ),
    Clause(
        "changes",
        "Weights, plan, settings and code have digests, so that another version shows; runs on "
        "the same corpus are counted.",
        ("plan.digest", "statement.lineage.runs", "#digests"),
        "a history of releases: it is made of the bundles that were kept",
    ),
)

_AI_RMF = (
    Clause(
        "privacy risk, examined and documented",
        "Every attack, what it could have found and what it found, and whether the tests were "
        "shown to notice a leak.",
        ("evidence.power.status", "#every-attack", "decision.verdict"),
    ),
    Clause(
        "a summary that names the failures",
        "The model card: one page, with the rules that do not hold at its top.",
        ("MODEL_CARD.md",),
    ),
)

GUIDANCE = (
    Guidance("Always", "What any reader of such a report is owed.", _ALWAYS),
    Guidance(
        "NIST SP 800-226",
        "How to judge whether somebody's claim of differential privacy means anything.",
        _NIST,
    ),
    Guidance(
        "EDPB Opinion 28/2024",
        "When personal data may be got out of an AI model, and what a supervisor looks at.",
        _EDPB,
    ),
    Guidance("EU AI Act, annex IV", "What technical documentation of a model holds.", _AI_ACT),
    Guidance("NIST AI RMF, MEASURE 2.10", "That privacy risk is looked at.", _AI_RMF),
)

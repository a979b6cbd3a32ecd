"""Extraction of planted secrets and of text; exact tests against their sums."""

import math
from dataclasses import replace

import numpy as np
import pytest

from audits.evidence import audit
from audits.extraction import baseline_rate, extracted
from audits.models import LoadedModel
from audits.planting.canaries import CanarySet, plan_canaries
from audits.private import PrivateCases
from audits.text.attempts import edit_distance
from audits.text.spans import Span, VerbatimCase
from audits.text.verbatim import fisher, mcnemar, verbatim
from dpmlm.artifacts import UserError

pytestmark = pytest.mark.xdist_group("extraction")


def _span(rng: np.random.Generator, unit: str, length: int = 5) -> Span:
    tokens = [int(token) for token in rng.integers(5, 700, 12 + length)]
    return Span(
        left=tuple(tokens[:6]),
        secret=tuple(tokens[6 : 6 + length]),
        right=tuple(tokens[6 + length :]),
        unit=unit,
    )


@pytest.fixture(scope="module")
def case() -> VerbatimCase:
    rng = np.random.default_rng(9)
    return VerbatimCase(
        train=[_span(rng, f"u{i}", 5 if i % 3 else 4) for i in range(40)],
        twins=[_span(rng, f"v{i}") for i in range(30)],
    )


@pytest.fixture(scope="module")
def parrot(untrained: LoadedModel, case: VerbatimCase, memoriser) -> LoadedModel:
    """Trained on the spans of five tokens, not on those of four."""
    rows = [span.left + span.secret + span.right for span in case.train if len(span.secret) == 5]
    # Every row at every stage of a left-to-right decode.
    starts = [start for start in range(6, 11) for _ in rows]
    return memoriser(untrained, rows * 5, [(start, 11) for start in starts], 80)


def test_verbatim_is_held_against_the_control_unless_a_reference_is_given(
    parrot: LoadedModel, untrained: LoadedModel, case: VerbatimCase, plan: dict
) -> None:
    none = plan_canaries(count=0, token_ids=range(5, 400), prefix_ids=range(400, 700))
    common: dict = {"plan": plan, "canaries": none, "untrained": untrained}
    common["private"] = PrivateCases(verbatim=case)

    def against(**rest: LoadedModel) -> tuple[str, bool, int]:
        found = audit(parrot, **common, **rest)["verbatim"]
        name = found["reference"]["is"]
        model = (rest | {"untrained": untrained, "given": rest.get("reference")})[name]
        return name, found["reference"]["model_digest"] == model.digest, found["discordant"]

    assert against()[:2] == ("untrained", True)
    assert against(control=parrot) == ("control", True, 0)  # it says as much: nothing is gained
    assert against(control=parrot, reference=untrained)[:2] == ("given", True)


def test_verbatim_finds_what_was_memorised(
    parrot: LoadedModel, untrained: LoadedModel, case: VerbatimCase
) -> None:
    found = verbatim(parrot, untrained, case)
    assert found["label"] == "private"
    assert found["spans"] == {"train": 40, "twins": 30}
    assert found["hits"]["train"] >= 20
    assert found["hits"]["twins"] == found["hits"]["reference"] == 0
    assert found["discordant"] == found["hits"]["train"]
    assert found["discordant_reversed"] == 0
    assert found["mcnemar_p_value"] == pytest.approx(0.5 ** found["discordant"])
    assert found["fisher_p_value"] < 1e-6
    assert found["discordant_upper"] > found["discordant"] / 40
    assert [part["tokens"] for part in found["by_length"]] == [4, 5]
    assert sum(part["spans"] for part in found["by_length"]) == 40
    assert found["by_length"][0]["hits"] == 0
    assert found["declared"]["decoder"] == "greedy"
    assert found["declared"]["context_at_least"] == {"left": 6, "right": 6}


def test_verbatim_of_an_untrained_model_finds_nothing(
    parrot: LoadedModel, untrained: LoadedModel, case: VerbatimCase
) -> None:
    found = verbatim(untrained, parrot, case)
    assert found["hits"]["train"] == found["discordant"] == 0
    assert found["mcnemar_p_value"] == found["fisher_p_value"] == 1
    assert found["discordant_reversed"] == found["hits"]["reference"] >= 20
    assert found["discordant_upper"] == pytest.approx(1 - 0.05 ** (1 / 40))


def test_result_holds_no_text_and_no_token(
    parrot: LoadedModel, untrained: LoadedModel, case: VerbatimCase
) -> None:
    text = str(verbatim(parrot, untrained, case))
    for span in case.train:
        assert str(list(span.secret))[1:-1] not in text
        assert parrot.tokenizer.decode(list(span.secret)) not in text
        assert f"'{span.unit}'" not in text
    assert str(case.train[0].secret[0]) not in repr(case)


def test_two_spans_of_one_unit_are_refused(untrained: LoadedModel, case: VerbatimCase) -> None:
    doubled = VerbatimCase(train=[case.train[0], case.train[0]], twins=case.twins)
    with pytest.raises(UserError, match="one unit"):
        verbatim(untrained, untrained, doubled)
    nameless = VerbatimCase(train=[replace(span, unit="") for span in case.train], twins=case.twins)
    assert verbatim(untrained, untrained, nameless)["spans"]["train"] == 40


def test_without_twins_or_training_spans_it_is_said_what_is_missing(
    untrained: LoadedModel, case: VerbatimCase
) -> None:
    found = verbatim(untrained, untrained, VerbatimCase(train=case.train, twins=[]))
    assert (found["label"], found["applicable"]) == ("private", False)
    assert found["missing"] == {"train": 0, "twins": 1}
    # A span with a special token in it cannot be said by any decoder, so it is no miss either.
    unknown = untrained.tokenizer.unk_token_id
    hidden = [replace(span, secret=(unknown, *span.secret[1:])) for span in case.train]
    found = verbatim(untrained, untrained, VerbatimCase(train=hidden, twins=case.twins))
    assert found["missing"] == {"train": 1, "twins": 0}
    assert found["unsayable"] == {"train": 40, "twins": 0}
    found = verbatim(
        untrained, untrained, VerbatimCase(train=[*hidden[:10], *case.train[10:]], twins=case.twins)
    )
    assert found["spans"] == {"train": 30, "twins": 30}
    assert found["unsayable"] == {"train": 10, "twins": 0}


def test_extraction_counts_either_guess(canaries: CanarySet) -> None:
    some = canaries.canaries[:4]
    secrets = np.array([canary.secret for canary in some])
    wrong = secrets + 1
    flat = np.zeros((4, 6, 64))
    flat[:, :, 0] = 1.0
    joint = flat.copy()
    for position, (token, alphabet) in enumerate(zip(some[1].secret, some[1].alphabets)):
        joint[1, position] = 0
        joint[1, position, alphabet.index(token)] = 2.0
    decoded = wrong.copy()
    decoded[0] = secrets[0]
    decoded[2, :5] = secrets[2, :5]
    assert extracted(some, joint, decoded).tolist() == [True, True, False, False]
    assert baseline_rate(some) == 2 / 2**36


def test_mcnemar_and_fisher_against_sums() -> None:
    for gained, lost in [(0, 0), (3, 1), (10, 2), (1, 4)]:
        n = gained + lost
        expected = sum(math.comb(n, k) for k in range(gained, n + 1)) / 2**n
        assert mcnemar(gained, lost) == pytest.approx(expected)
    train, twins = np.array([True] * 6 + [False] * 14), np.array([True] + [False] * 19)
    hits = 7
    expected = sum(math.comb(20, k) * math.comb(20, hits - k) for k in range(6, 8))
    assert fisher(train, twins) == pytest.approx(expected / math.comb(40, hits))


def test_edit_distance_against_recursion() -> None:
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    for a, b in [("kitten", "sitten"), ("", "abc"), ("", ""), ("abcd", "badc"), ("same", "same")]:
        assert edit_distance(a, b) == slow(a, b) / max(len(a), len(b), 1)


@pytest.mark.parametrize("role", ["target", "reference"])
def test_a_model_without_finite_scores_is_not_held_against_text(
    broken: LoadedModel, untrained: LoadedModel, case: VerbatimCase, role: str
) -> None:
    models = {"target": untrained, "reference": untrained} | {role: broken}
    found = verbatim(models["target"], models["reference"], case)
    assert found["label"] == "private"
    assert found["applicable"] is False
    assert "not finite" in found["reason"]
    assert "hits" not in found

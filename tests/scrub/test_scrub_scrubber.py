import dataclasses
import itertools
import json
import multiprocessing
import re
import resource
from collections.abc import Iterator
from datetime import datetime

import pytest
from variants import rest_in_full

from dpmlm.scrub import Decision, Scrubber, load_policy, replay, shipped_policies
from dpmlm.scrub.blocks import LIMIT
from dpmlm.scrub.findings import Finding
from dpmlm.scrub.patterns.search import Patterns
from dpmlm.scrub.recognizers.registry import presidio_recognizers

NOTE = """Patient: Jane Kowalski
MRN: 00123456
Seen on 12 March 2021 by Dr. Robert Hughes. Kowalski's phone number is 212-555-0187,
her mail is jane.kowalski@example.org. SSN 078-05-1121 noted. jane kowalski went home.
"""
FAST = ("default", "gdpr-pseudonymise")
SECRETS = ("Kowalski", "kowalski", "Hughes", "212-555-0187", "00123456", "12 March 2021")


def test_a_note_is_scrubbed(scrubber: Scrubber) -> None:
    scrubbed = scrubber.scrub(NOTE)
    assert not any(secret in scrubbed.text for secret in SECRETS)
    for kind in ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "DATE_TIME"):
        assert f"<{kind}>" in scrubbed.text
    assert "went home" in scrubbed.text


def test_decisions_rebuild_the_text_and_hold_none_of_it(scrubber: Scrubber) -> None:
    scrubbed = scrubber.scrub(NOTE)
    rebuilt, last = "", 0
    for decision in scrubbed.decisions:
        assert decision.start >= last
        rebuilt += NOTE[last : decision.start] + f"<{decision.entity}>"
        last = decision.end
    assert rebuilt + NOTE[last:] == scrubbed.text
    log = json.dumps([dataclasses.asdict(d) for d in scrubbed.decisions])
    assert not any(secret in log for secret in SECRETS)


@pytest.mark.parametrize(
    "text",
    ["", "x", "@", "7", " \n\n ", "\ufeff", "\x00", "\ud800", "🙂" * 5, "a" * (3 * LIMIT), "\r"],
)
def test_odd_texts_pass(scrubber: Scrubber, text: str) -> None:
    assert scrubber.scrub(text).text == text or "<" in scrubber.scrub(text).text


@pytest.mark.parametrize(
    "policy", rest_in_full(["surrogates", "gdpr-pseudonymise"], ["gdpr-pseudonymise"])
)
def test_half_a_character_stops_no_keyed_operator(policy: str) -> None:
    keyed = Scrubber(load_policy(policy), pseudonym_key=bytes(32))
    scrubbed = keyed.scrub("Seen on 12 March 2021 by Mr Robert Hughes. \ud800 mail a\udfff@b.org")
    assert {"PERSON", "DATE_TIME"} <= {d.entity for d in scrubbed.decisions}
    assert "Hughes" not in scrubbed.text
    assert "12 March 2021" not in scrubbed.text


def test_line_ends_within_a_finding_go_and_those_around_it_stay(scrubber: Scrubber) -> None:
    text = "He met Mr Robert\r\nHughes on 12\nMarch 2021.\r\n\r\nRobert Hughes\r\nKarin Olsen\n"
    assert scrubber.scrub(text).text == (
        "He met <PERSON> on <DATE_TIME>.\r\n\r\n<PERSON>\r\n<PERSON>\n"
    )


def test_offsets_are_put_back_in_long_texts(scrubber: Scrubber) -> None:
    filler = "the knee is stable and there is no effusion.\n\n"
    long = filler * 100 + NOTE + filler * 100 + "\njane kowalski again"
    assert len(long) > 3 * LIMIT
    scrubbed = scrubber.scrub(long)
    assert not any(secret in scrubbed.text for secret in SECRETS)
    assert scrubbed.text.count("the knee is stable") == 200


def test_a_text_does_not_depend_on_its_neighbours(scrubber: Scrubber) -> None:
    alone = scrubber.scrub(NOTE)
    among = list(scrubber.scrub_many(["Kowalski is a town.", NOTE, NOTE * 3, NOTE]))
    assert among[1] == among[3] == alone


@pytest.mark.full
def test_any_number_of_processes_gives_the_same(scrubber: Scrubber) -> None:
    texts = [NOTE.replace("Jane", name) for name in ("Ann", "Bo", "Cy", "Di")] * 10
    texts += ["", "nothing here"]
    expected = list(scrubber.scrub_many(texts))
    before = len(multiprocessing.active_children())
    with Scrubber(scrubber.policy) as other:
        assert list(other.scrub_many(iter(texts), processes=2)) == expected
        assert list(other.scrub_many(texts[:3], processes=2)) == expected[:3]
        assert len(multiprocessing.active_children()) == before + 2
    assert len(multiprocessing.active_children()) == before


def test_texts_are_read_as_they_are_needed(scrubber: Scrubber) -> None:
    taken = []

    def texts() -> Iterator[str]:
        for number in range(10_000):
            taken.append(number)
            yield "no names"

    results = scrubber.scrub_many(texts())
    next(results)
    assert len(taken) < 200


def test_pseudonyms_link_a_person_across_documents() -> None:
    scrubber = Scrubber(load_policy("gdpr-pseudonymise"), pseudonym_key=bytes(range(32)))
    first = scrubber.scrub("Mr Robert Hughes came home.").text
    second = scrubber.scrub("We saw Dr. ROBERT HUGHES and Mr Peter Jones.").text
    token = next(word for word in first.split() if word.startswith("PERSON_"))
    assert token in second
    assert second.count("PERSON_") == 2


def test_redaction_and_keeping(scrubber: Scrubber) -> None:
    policy = scrubber.policy.model_copy(
        update={
            "rules": (
                load_policy("default").rule_for("PERSON").model_copy(update={"operator": "redact"}),
                load_policy("default").rule_for("URL").model_copy(update={"operator": "keep"}),
            )
        }
    )
    policy = type(policy).model_validate(policy.model_dump())
    text = Scrubber(policy).scrub("Mr Robert Hughes wrote http://www.example.org/hughes").text
    assert "█" in text
    assert "Robert" not in text


def test_surrogates_read_as_text_and_dates_of_a_person_move_together() -> None:
    scrubber = Scrubber(load_policy("surrogates"), pseudonym_key=bytes(range(32)))
    note = "Ms Jane Roe was seen on 12 March 1998. Jane Roe came again on 19 March 1998."
    text = scrubber.scrub(note, "jane").text
    for original in ("Jane", "Roe", "12 March", "19 March", "<"):
        assert original not in text
    first, again = re.findall(r"\d+ [A-Z][a-z]+ \d{4}", text)
    days = [datetime.strptime(found, "%d %B %Y") for found in (first, again)]
    assert (days[1] - days[0]).days == 7
    names = re.findall(r"([A-Z][a-z]+ [A-Z][a-z]+) (?:was|came)", text)
    assert len(names) == 2
    assert names[0] == names[1]
    assert scrubber.scrub(note, "jane").text == text != scrubber.scrub(note, "somebody else").text
    together = scrubber.scrub_many([note] * 3, persons=["jane", "other", "jane"])
    one, two, three = (scrubbed.text for scrubbed in together)
    assert one == three == text != two


@pytest.mark.parametrize(
    "policy",
    rest_in_full(["hipaa-safe-harbor", "surrogates", "gdpr-pseudonymise"], ["hipaa-safe-harbor"]),
)
def test_a_name_that_runs_into_a_number_goes_with_it(policy: str) -> None:
    """Name finders run on into what stands beside: what keeps some of an age or of a card must not
    keep the name."""
    scrubber = Scrubber(load_policy(policy), pseudonym_key=bytes(range(32)))
    for name in ("Smith", "Roe", "Kringle", "Jane Roe"):
        for note in (
            f"Pt {name} 92 yo male with CHF",
            f"Next of kin: {name} 91 years",
            f"{name} 95 years",
            f"{name} 4111 1111 1111 1111",
            f"{name}@http://foo.org",
        ):
            found = scrubber.scrub(note)
            covered = any(d.start <= note.index(name) < d.end for d in found.decisions)
            assert not covered or name not in found.text, (note, found.text)


def test_the_operator_in_the_log_is_the_one_that_was_used() -> None:
    scrubber = Scrubber(load_policy("hipaa-safe-harbor"))
    mixed = scrubber._decision(Finding(0, 9, "AGE", "R", 0.8, mixed=True))
    alone = scrubber._decision(Finding(0, 9, "AGE", "R", 0.8))
    assert (mixed.operator, alone.operator) == ("placeholder", "generalise")


def test_accents_written_apart_go_with_their_letter() -> None:
    scrubber = Scrubber(load_policy("gdpr-pseudonymise"), pseudonym_key=bytes(range(32)))
    text = scrubber.scrub("Dear Jose\u0301, my name is Jos\u00e9.").text
    assert "\u0301" not in text
    assert len(set(re.findall(r"PERSON_\w+", text))) == 1


@pytest.mark.parametrize("policy", rest_in_full(shipped_policies(), FAST))
def test_the_log_of_decisions_replays_the_text_and_holds_none_of_it(policy: str) -> None:
    key = bytes(range(32))
    scrubber = Scrubber(load_policy(policy), pseudonym_key=key)
    scrubbed = scrubber.scrub(NOTE, "jane")
    log = json.dumps([dataclasses.asdict(made) for made in scrubbed.decisions])
    assert not {word for word in NOTE.split() if len(word) > 4 and word in log}
    again = [Decision(**made) for made in json.loads(log)]
    assert len(again) > 3
    assert replay(NOTE, again, key, person="jane") == scrubbed.text


@pytest.mark.parametrize("policy", rest_in_full(shipped_policies(), FAST))
def test_broken_surrogates_and_nuls_pass_under_every_policy(policy: str) -> None:
    scrubber = Scrubber(load_policy(policy), pseudonym_key=bytes(range(32)))
    text = "\ud800 Mr Robert\x00 Hughes\udfff, phone 212-555-0187\r\nrh\u200b@example.org \ud83d"
    scrubbed = scrubber.scrub(text, "rob\udc00")
    assert "0187" not in scrubbed.text
    assert "example.org" not in scrubbed.text
    assert scrubbed.text[0] == "\ud800"


@pytest.mark.full
def test_two_thousand_identical_documents(scrubber: Scrubber) -> None:
    expected = scrubber.scrub(NOTE)
    with Scrubber(scrubber.policy) as other:
        results = other.scrub_many(itertools.repeat(NOTE, 2000), processes=2)
        assert sum(result == expected for result in results) == 2000


@pytest.mark.full
def test_fifty_megabytes_on_one_line_stay_within_memory(scrubber: Scrubber) -> None:
    """Patterns alone: names take their time, block by block."""
    policy = scrubber.policy.model_copy(update={"rules": (), "other": scrubber.policy.other})
    patterns = Patterns(presidio_recognizers(), lambda entity: policy.other.threshold)
    text = "we saw him there; and then again, write to jroe@example.org or so. " * 760_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = patterns.find(text[:50_000_000])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(found) > 1_400_000
    assert grown < 4_000_000  # KiB: some 2.5 KiB for each of 1.5 million findings

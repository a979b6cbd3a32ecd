import random
import re
import time

from dpmlm.scrub import names as module
from dpmlm.scrub.findings import Finding
from dpmlm.scrub.names import propagate


def _found(text: str, name: str, score: float = 0.85, entity: str = "PERSON") -> list[str]:
    at = text.index(name)
    given = [Finding(at, at + len(name), entity, "R", score)]
    return [text[f.start : f.end] for f in propagate(text, given)]


def test_a_full_name_and_its_parts_are_found_in_any_case() -> None:
    text = "Ms Jane Kowalski came. KOWALSKI left; jane kowalski and kowalski's dog, Jane too."
    found = _found(text, "Ms Jane Kowalski")
    assert {"KOWALSKI", "jane kowalski", "kowalski", "Jane"} <= set(found)


def test_parts_are_words_not_letters_within_words() -> None:
    assert "Ann" not in _found("Dr Ann Smythe. Annual review, Hannah.", "Ann Smythe")[2:]
    assert "Li" not in _found("Wei Li said: List it.", "Wei Li")


def test_ordinary_words_are_left_in_lower_case() -> None:
    found = _found("Mark Baker will mark the paper; ask Baker, a baker.", "Mark Baker")
    assert "mark" not in found
    assert "baker" not in found
    assert found.count("Baker") == 2  # as part of the full name, and alone


def test_titles_alone_and_unsure_or_other_findings_are_not_carried_on() -> None:
    assert "Dr" not in _found("Dr Foo and Dr Bar", "Dr Foo")
    assert _found("Zork here, Zork there", "Zork", score=0.6) == []
    assert _found("Zork here, Zork there", "Zork", entity="LOCATION") == []


def test_a_single_word_is_not_looked_for_in_lower_case() -> None:
    assert _found("Windows is slow, WINDOWS too, open the windows", "Windows") == [
        "Windows",
        "WINDOWS",
    ]
    assert "zork" in _found("Mr Zork came, said zork", "Mr Zork")


def test_a_word_of_the_document_is_no_name() -> None:
    text = "Mr Atheist Resources: an atheist said to an atheist that atheist is a word. Atheist."
    assert "atheist" not in _found(text, "Mr Atheist Resources")
    assert "Resources" in _found(text, "Mr Atheist Resources")


def test_names_over_a_line_end_are_found() -> None:
    assert "Jane\nKowalski" in _found("Jane Kowalski. Then Jane\nKowalski.", "Jane Kowalski")


def naive_find(text: str, names: set[tuple[str, ...]], flags: re.RegexFlag) -> list[tuple]:
    spelt = {r"\s+".join(map(re.escape, name)): len(" ".join(name)) for name in names}
    longest_first = "|".join(sorted(spelt, key=lambda n: (-spelt[n], n)))
    pattern = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)", flags)
    return [match.span() for match in pattern.finditer(text)]


def test_looking_up_equals_one_pattern_of_all_names() -> None:
    draw = random.Random(1)
    words = ["Ann", "ann", "ANN", "Roe", "O'Brien", "Smith-Jones", "Smith", "de", "Roes", "x_Roe"]
    for _ in range(300):
        names = {tuple(draw.choices(words, k=draw.randrange(1, 4))) for _ in range(6)}
        text = "".join(
            draw.choice(words) + draw.choice([" ", "  ", "\n", ", ", "-", "", "'s "])
            for _ in range(40)
        )
        for fold, flags in ((str.lower, re.IGNORECASE), (str, re.NOFLAG)):
            found = [(f.start, f.end) for f in module._find(text, names, fold)]
            assert found == naive_find(text, names, flags)


def test_many_names_cost_no_more_than_their_text() -> None:
    def seconds(count: int) -> float:
        text = ". ".join(f"Mr Fore{n} Last{n} came" for n in range(count))
        places = [(m.start(), m.end()) for m in re.finditer(r"Fore\d+ Last\d+", text)]
        findings = [Finding(a, b, "PERSON", "r", 0.9) for a, b in places]
        started = time.process_time()
        assert len(propagate(text, findings)) >= count
        return time.process_time() - started

    seconds(100)
    # Sixteen times the text: 30 to 50 times as long with what caches miss, 256 were it quadratic.
    assert seconds(16_000) < 110 * min(seconds(1000), seconds(1000))


def test_names_that_begin_alike_cost_no_more_than_their_text() -> None:
    def seconds(count: int) -> float:
        text = ". ".join(f"Mr John Last{n} came" for n in range(count))
        places = [(m.start(), m.end()) for m in re.finditer(r"John Last\d+", text)]
        findings = [Finding(a, b, "PERSON", "r", 0.9) for a, b in places]
        started = time.process_time()
        assert len(propagate(text, findings)) >= count
        return time.process_time() - started

    seconds(100)
    # Doubled three times: 8 to 15 times as long, 64 were it quadratic.
    assert min(seconds(8000) for _ in range(3)) < 30 * seconds(1000)

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

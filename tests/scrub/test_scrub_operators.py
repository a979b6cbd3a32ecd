import hashlib

import pytest

from dpmlm.scrub.operators.replacement import normal_form, pseudonym, replacement

KEY = bytes(range(32))


def _naive_hmac(key: bytes, message: bytes) -> str:
    """RFC 2104 spelt out."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()


def test_placeholder_redact_keep() -> None:
    assert replacement("placeholder", "PERSON", "Jane Roe", None) == "<PERSON>"
    assert replacement("redact", "PERSON", "Jane Roe", None) == "█"
    assert replacement("keep", "PERSON", "Jane Roe", None) == "Jane Roe"


def test_pseudonym_is_the_written_hmac() -> None:
    message = b"dpmlm/scrub/pseudonym/1\0PERSON\0jane roe"
    expected = "PERSON_" + _naive_hmac(KEY, message)[:12]
    assert replacement("pseudonym", "PERSON", "Jane  ROE", KEY) == expected


def test_half_a_character_is_three_bytes_of_the_hmac() -> None:
    message = b"dpmlm/scrub/pseudonym/1\0PERSON\0jo\xed\xa0\x80n roe"
    expected = "PERSON_" + _naive_hmac(KEY, message)[:12]
    assert replacement("pseudonym", "PERSON", "Jo\ud800n Roe", KEY) == expected


@pytest.mark.parametrize(
    "variant",
    [
        "jane roe",
        "JANE ROE",
        "Jane\n Roe",
        "Ms Jane Roe",
        "Mrs. Jane Roe",
        "Roe, Jane",
        "Jane Roe's",
    ],
)
def test_variants_of_a_name_share_a_token(variant: str) -> None:
    assert pseudonym(KEY, "PERSON", variant) == pseudonym(KEY, "PERSON", "Jane Roe")


def test_types_keys_and_names_are_apart() -> None:
    tokens = {
        pseudonym(KEY, "PERSON", "Paris"),
        pseudonym(KEY, "LOCATION", "Paris"),
        pseudonym(bytes(32), "PERSON", "Paris"),
        pseudonym(KEY, "PERSON", "Perth"),
    }
    assert len(tokens) == 4


def test_a_name_of_titles_alone_keeps_its_words() -> None:
    assert normal_form("PERSON", "Dr") == "dr"
    assert normal_form("EMAIL_ADDRESS", " A@B.org ") == "a@b.org"


@pytest.mark.parametrize(
    ("entity", "variants", "others"),
    [
        (
            "PERSON",
            "Jane Roe|Jane Roe, Ph.D.|Jane Roe Ph.D.|Jane Roe, M.D.|Lieutenant Jane Roe|"
            "President Jane Roe|Officer Jane Roe|Detective JANE ROE|Ja\u00adne Roe|Roe, Jane, M.D.",
            "Jane Poe|J. Roe",
        ),
        ("PERSON", "J.R. Roe|J. R. Roe|Roe, J.R.|ROE, J. R.", "Roe|R.J. Roe"),
        ("PERSON", "Jos\u00e9 Roe|Jose\u0301 Roe", "Jose Roe"),
        (
            "PHONE_NUMBER",
            "212-555-0187|(212) 555-0187|+1 212 555 0187|1.212.555.0187",
            "212 555 018",
        ),
        ("US_SSN", "123-45-6789|123 45 6789|123456789", "123-45-6780"),
        ("ID", "AB-12/97|ab 12 97", "AB-12/98"),
    ],
)
def test_spellings_of_one_thing_have_one_token(entity, variants, others):
    (token,) = {pseudonym(KEY, entity, variant) for variant in variants.split("|")}
    assert token not in {pseudonym(KEY, entity, other) for other in others.split("|")}


@pytest.mark.parametrize(
    "variants",
    [
        (
            "Ludwig van Beethoven",
            "LUDWIG VAN BEETHOVEN",
            "Ludwig Van Beethoven",
            "beethoven, ludwig",
        ),
        ("Judge Roe", "roe", "Roe, MD", "Dr. Roe"),
        ("Mike Judge", "mr mike judge", "Judge, Mike"),
        ("Smith, Jr., John", "John Smith Jr.", "Mr John Smith", "John  SMITH's"),
        ("van Gogh", "Dr. van Gogh", "VAN GOGH"),
    ],
)
def test_spellings_of_one_name_have_one_token(variants: tuple[str, ...]) -> None:
    assert len({pseudonym(KEY, "PERSON", each) for each in variants}) == 1


def test_a_word_that_is_a_title_elsewhere_is_part_of_a_name() -> None:
    names = (
        "Mike Judge", "Mike", "Kim Le", "Kim", "Al Gore", "Gore", "Van Morrison", "Morrison",
        "Jane Gen", "Jane", "MD", "Jr.", "Judge",
    )  # fmt: skip
    assert len({pseudonym(KEY, "PERSON", each) for each in names}) == len(names)

"""Surrogates are of their kind, keyed, the same for all spellings, and nothing of the original."""

import ipaddress
import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from variants import rest_in_full

from dpmlm.scrub.operators import dates, numbers
from dpmlm.scrub.operators.generalised import FEW_PEOPLE, generalised
from dpmlm.scrub.operators.keyed import Keyed
from dpmlm.scrub.operators.replacement import replacement
from dpmlm.scrub.operators.surrogates import NAMES, SURROGATES, surrogate

KEY = bytes(range(32))


def of(entity, original, key=KEY, person="p"):
    return surrogate(key, entity, original, person=person)


def naive_luhn(number: str) -> bool:
    """Every second digit from the right doubled, its digits added."""
    total = 0
    for place, digit in enumerate(re.sub(r"\D", "", number)[::-1]):
        total += sum(map(int, str(int(digit) * (1 + place % 2))))
    return total % 10 == 0


def naive_iban(number: str) -> bool:
    plain = re.sub(r"\s", "", number)
    remainder = 0
    for character in plain[4:] + plain[:4]:
        for digit in str(int(character, 36)):
            remainder = (10 * remainder + int(digit)) % 97
    return remainder == 1


def test_choices_are_even_and_keyed():
    counts = [0] * 7
    for number in range(7000):
        counts[Keyed(KEY, str(number)).below(7)] += 1
    assert stats.chisquare(counts).pvalue > 1e-6
    drawn = [Keyed(key, "x").below(1 << 24) for key in (KEY, bytes(32))]
    assert drawn[0] != drawn[1]
    stream = Keyed(KEY, "x")
    assert len({stream.below(1 << 24) for _ in range(20)}) == 20


def test_no_name_is_there_twice_or_spelt_oddly():
    assert len(set(NAMES)) == len(NAMES) > 100
    assert all(re.fullmatch(r"[A-Z][a-z]+", name) for name in NAMES)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Jane Roe", "JANE ROE"),
        ("Jane Roe", "jane roe"),
        ("Ms Jane Roe", "Mrs. Jane Roe"),
        ("Jane Roe", "Jane  Roe"),
    ],
)
def test_spellings_of_a_name_have_one_surrogate(one, other):
    words = [re.sub(r"[\s.]+", " ", of("PERSON", text)).lower() for text in (one, other)]
    assert words[0] == words[1]


def test_a_surrogate_keeps_the_form_and_no_initial():
    first, last = of("PERSON", "Jane Roe").split()
    assert {first, last} <= set(NAMES)
    assert (first[0], last[0]) != ("J", "R")
    assert of("PERSON", "Roe, Jane") == f"{last}, {first}"
    assert of("PERSON", "Dr. JANE ROE's") == f"Dr. {first.upper()} {last.upper()}'s"
    assert of("PERSON", "Mr Roe") == f"Mx {last}"
    assert re.fullmatch(rf"[A-Z]\. {last}", of("PERSON", "J. Roe"))
    assert of("PERSON", "J. Roe")[0] != "J"


@given(st.text(alphabet=st.characters(categories=["L"]), min_size=2, max_size=12))
def test_no_word_begins_as_it_did(word):
    fresh = of("PERSON", word)
    assert fresh.lower() != word.lower()
    if word[0].isascii():
        assert (
            fresh[0].lower() != word[0].lower()
            or word.lower() in ("dr", "la", "le", "de")
            or fresh.lower() == "mx"
        )


@pytest.mark.parametrize(
    ("entity", "original", "shape"),
    [
        ("EMAIL_ADDRESS", "jane.roe42@clinic.org", r"[a-z]+\.[a-z]+\d\d@[a-z]+\.example\.\w+"),
        ("URL", "https://www.roe.net/~jane", r"https://[a-z]+\.example\.(com|net|org)/[0-9a-f]{6}"),
        ("URL", "www.roe.net", r"[a-z]+\.example\.(com|net|org)"),
        ("PHONE_NUMBER", "(212) 736-5000", r"\([2-9]\d[1-9]\) 555-01\d\d"),
        ("PHONE_NUMBER", "+1 212 736 5000", r"\+1 [2-9]\d[1-9] 555 01\d\d"),
        ("PHONE_NUMBER", "+44 20 7946 0958", r"\+44 \d\d \d{4} \d{4}"),
        ("US_SSN", "078-05-1120", r"\d{3}-\d\d-\d{4}"),
        ("IBAN_CODE", "GB82 WEST 1234 5698 7654 32", r"GB\d\d [A-Z]{4} \d{4} \d{4} \d{4} \d\d"),
        ("CREDIT_CARD", "4111-1111-1111-1111", r"4\d{3}-\d{4}-\d{4}-\d{4}"),
        ("ID", "AB-1234/x", r"[A-Z]{2}-\d{4}/[a-z]"),
        ("ADDRESS", "12 Oak Street, Apt 4", r"\d\d [A-Z][a-z]+ Street, Apt \d"),
        ("ORGANIZATION", "St Mary Hospital", r"St [A-Z][a-z]+ Hospital"),
        ("LOCATION", "LEEDS", r"[A-Z]+"),
    ],
)  # fmt: skip
def test_each_kind_has_its_form(entity, original, shape):
    fresh = of(entity, original)
    assert re.fullmatch(shape, fresh), fresh
    assert fresh != original
    assert fresh == of(entity, original)
    assert fresh != of(entity, original, key=bytes(32))


@given(st.from_regex(r"[1-9][0-9]{13,17}", fullmatch=True))
def test_a_card_checks_if_and_only_if_it_did(number):
    assert naive_luhn(numbers.card(number, Keyed(KEY, number))) is naive_luhn(number)


@given(st.from_regex(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", fullmatch=True))
def test_an_iban_checks(number):
    fresh = numbers.iban(number, Keyed(KEY, number))
    assert naive_iban(fresh)
    assert (fresh[:2], len(fresh)) == (number[:2], len(number))


@pytest.mark.parametrize(
    ("original", "gone"),
    [
        ("Al Le", ["Al", "Le"]), ("Bin Den", ["Bin", "Den"]), ("Dr. Le", ["Le"]),
        ("Mike Judge", ["Mike", "Judge"]), ("Van Morrison", ["Van", "Morrison"]),
        ("Jane Roe 1987", ["Jane", "1987"]), ("Jose\u0301", ["Jose", "\u0301"]),
        ("Ludwig van Beethoven", ["Ludwig", "Beethoven"]),
    ],
)  # fmt: skip
def test_titles_and_particles_are_names_where_they_stand_for_one(original, gone):
    fresh = of("PERSON", original)
    assert not [part for part in gone if part in fresh], fresh


def test_titles_degrees_and_particles_stay_where_they_are_that():
    assert of("PERSON", "Judge Roe").startswith("Judge ")
    assert of("PERSON", "Jane Roe, MD").endswith(", MD")
    assert " van " in of("PERSON", "Ludwig van Beethoven")


FULLWIDTH, ARABIC = 0xFF10, 0x0660
"""Where the digits of two other scripts begin."""


@pytest.mark.parametrize("zero", [FULLWIDTH, ARABIC])
def test_digits_of_other_scripts_are_replaced(zero):
    number = "".join(chr(zero + int(c)) if c.isdigit() else c for c in "212-556-0123")
    fresh = of("PHONE_NUMBER", number)
    assert fresh.isascii()
    assert not set(number) & set(fresh) - {"-"}


@pytest.mark.parametrize("original", ["1-800-FLOWERS", "\u0391\u0392\u0393", "xxx-xx-6789"])
def test_letters_of_a_number_are_replaced(original):
    for entity in ("PHONE_NUMBER", "ID", "US_SSN"):
        fresh = of(entity, original)
        assert all(a != b or not a.isalnum() for a, b in zip(original, fresh, strict=True))


def test_networks_are_those_for_documentation():
    for original in ("10.1.2.3", "203.0.113.9"):
        fresh = ipaddress.ip_address(of("IP_ADDRESS", original))
        assert any(
            fresh in ipaddress.ip_network(f"{net}.0/24")
            for net in ("192.0.2", "198.51.100", "203.0.113")
        )
    assert ipaddress.ip_address(of("IP_ADDRESS", "fe80::1")) in ipaddress.ip_network(
        "2001:db8::/32"
    )


@pytest.mark.parametrize("number", range(40))
def test_social_security_numbers_are_such_as_are_given_out(number):
    area, group, serial = of("US_SSN", f"{100 + number}-45-6789").split("-")
    assert 1 <= int(area) <= 899
    assert int(area) != 666
    assert int(group) > 0
    assert int(serial) > 0


@pytest.mark.parametrize(
    ("text", "weeks", "moved"),
    [
        ("1998-03-12", 5, "1998-04-16"),
        ("3/25/98", 5, "4/29/98"),
        ("25/3/1998", 5, "29/4/1998"),
        ("12.03.1998", 5, "16.04.1998"),
        ("12 March 1998", -52, "13 March 1997"),
        ("Tuesday, March 3rd, 1998", 1, "Tuesday, March 10th, 1998"),
        ("June 30th 2004", 5, "August 4th 2004"),
        ("MAR 1998", 52, "MAR 1999"),
        ("December 28", 1, "January 4"),
        ("March 3 to April 5, 1998 at 10:30", 1, "March 10 to April 12, 1998 at 10:30"),
        ("1998", 52, "1999"),
        ("yesterday", 3, None),
        ("31/02/1999", 3, None),
        ("2 weeks after 3 May 1999", 3, None),
        ("12.03.-15.03.2014", 43, None),
        ("31.04.14 and 5 March 2014", 5, None),
        ("March and 5 April 2014", 5, None),
        ("Christmas Eve to 3 January 2014", 5, None),
        ("\u017fept 3, 2014", 5, None),
    ],
)  # fmt: skip
def test_dates_move_by_whole_weeks_in_their_spelling(text, weeks, moved):
    assert dates.shifted(text, weeks) == moved


@given(st.dates(date(1901, 1, 1), date(2090, 1, 1)), st.integers(-52, 52))
def test_a_moved_date_is_the_right_number_of_days_away(day, weeks):
    moved = dates.shifted(day.isoformat(), weeks)
    if weeks == 0:  # it would stay as it is
        assert moved is None
    else:
        assert (date.fromisoformat(moved) - day).days == 7 * weeks


def test_dates_of_a_person_move_together_and_those_of_others_otherwise():
    def days(text, person):
        return (date.fromisoformat(of("DATE_TIME", text, person=person)) - date(1998, 3, 12)).days

    assert days("1998-03-12", "jane") == days("1998-03-12", "jane") != 0
    later = date.fromisoformat(of("DATE_TIME", "1998-03-22", person="jane")) - date(1998, 3, 22)
    assert later.days == days("1998-03-12", "jane")
    assert len({days("1998-03-12", f"person {number}") for number in range(50)}) > 20


KINDS = sorted(SURROGATES - {"DATE_TIME"})


@pytest.mark.parametrize("entity", rest_in_full(KINDS, KINDS[::2]))
@given(st.text(max_size=40))
def test_nothing_makes_it_fail_and_nothing_stays_as_it_was(entity, text):
    fresh = of(entity, text)
    assert fresh is None or fresh.casefold() != text.casefold()


@given(st.text(max_size=40))
def test_no_date_makes_it_fail(text):
    assert isinstance(of("DATE_TIME", text), str | None)


@pytest.mark.parametrize(
    ("entity", "original", "less"),
    [
        ("DATE_TIME", "12 March 1998", "1998"),
        ("DATE_TIME", "from 3/4/1997 to 5/6/1998", "1997-1998"),
        ("DATE_TIME", "March 3", None),
        ("AGE", "93-year-old", "90+-year-old"),
        ("AGE", "age 89", "age 89"),
        ("AGE", "aged 92 and 95", "aged 90+ and 90+"),
        ("AGE", "ninety 3", None),
        ("AGE", "Mo 95 years", None),
        ("AGE", "Smith 92 yo", None),
        ("ZIP_CODE", "02138-1234", "021**"),
        ("ZIP_CODE", "03601", "000**"),
        ("PERSON", "Jane Roe", None),
    ],
)
def test_what_is_more_general(entity, original, less):
    assert generalised(entity, original) == less
    shown = replacement("generalise", entity, original, None)
    assert shown == (f"<{entity}>" if less is None else less)


def test_seventeen_areas_have_few_people():
    assert len(FEW_PEOPLE) == 17


@pytest.mark.parametrize(
    ("entity", "original"),
    [
        ("LOCATION", "Mount Royal"),
        ("ID", "--"),
        ("PHONE_NUMBER", "?"),
        ("URL", "Smith http://roe.net/x"),
    ],
)
def test_where_all_words_would_stay_a_placeholder_stands(entity, original):
    assert replacement("surrogate", entity, original, KEY) == f"<{entity}>"


def test_a_year_that_would_stay_is_a_placeholder():
    told = {replacement("surrogate", "DATE_TIME", "1994", bytes([b]) * 32) for b in range(64)}
    assert told == {"1993", "1995", "<DATE_TIME>"}
    for original in ("1993-1995", "from 12 March 1994 to 1994"):
        for b in range(64):
            fresh = replacement("surrogate", "DATE_TIME", original, bytes([b]) * 32)
            kept = set(re.findall(r"\d{4}", original)) & set(re.findall(r"\d{4}", fresh))
            assert fresh == "<DATE_TIME>" or original not in fresh
            assert not kept or "March" in original or fresh != original


@pytest.mark.parametrize("entity", ["CREDIT_CARD", "US_SSN", "ID", "PHONE_NUMBER"])
def test_letters_beside_a_number_do_not_stay(entity):
    for number in ("4111 1111 1111 1111", "536-90-4399", "212-555-0187"):
        assert "smith" not in of(entity, f"Smith {number}").casefold()


def test_separators_and_the_north_american_one_do_not_change_a_number():
    one = re.sub(r"\D", "", of("PHONE_NUMBER", "212-555-0187"))
    assert re.sub(r"\D", "", of("PHONE_NUMBER", "+1 (212) 555-0187")) == f"1{one}"


def test_without_a_surrogate_a_placeholder_stands():
    assert replacement("surrogate", "NRP", "German", KEY) == "<NRP>"
    assert replacement("surrogate", "DATE_TIME", "yesterday", KEY) == "<DATE_TIME>"

"""What recognizers see of a text, and the way back."""

import random
import unicodedata

import pytest

from dpmlm.scrub import Scrubber
from dpmlm.scrub.view import View


def test_ordinary_text_is_seen_as_it_is() -> None:
    text = "Plain text,\twith signs ~!@#\nand lines."
    view = View(text)
    assert view.text is text
    assert view.place(3, 9) == (3, 9)


@pytest.mark.parametrize(
    ("original", "seen"),
    [
        ("a\r\nb\rc", "a \nb\nc"),
        ("212\u00a0555\u202f0187", "212 555 0187"),
        ("\uff11\uff12\uff13\uff20\uff41", "123@a"),
        ("\u0661\u0662", "12"),
        ("a\u2013b\u2011c", "a-b-c"),
        ("jo\u00adhn\u200b@\u2060x", "john@x"),
        ("Jose\u0301", "Jose"),
        ("\ud800x\x00", "\ufffdx "),
        ("caf\u00e9 \u4e2d\u2019", "caf\u00e9 \u4e2d\u2019"),
        ("\ufdd0a", "a"),
    ],
)
def test_what_is_seen(original: str, seen: str) -> None:
    assert View(original).text == seen


def test_places_lead_back() -> None:
    """Against a walk over the characters."""
    rng = random.Random(1)
    left_out = "\u200b\u00ad\ufeff\u0301"
    for _ in range(300):
        text = "".join(rng.choice("ab \r\n\u00a0" + left_out) for _ in range(rng.randrange(1, 30)))
        kept = [i for i, c in enumerate(text) if c not in left_out]
        view = View(text)
        assert len(view.text) == len(kept)
        for _ in range(5):
            if kept:
                start = rng.randrange(len(kept))
                end = rng.randrange(start, len(kept)) + 1
                last = kept[end - 1] + 1
                while text[last : last + 1] == "\u0301":  # goes with the letter before it
                    last += 1
                assert view.place(start, end) == (kept[start], last)


def test_every_character_has_one_place() -> None:
    every = [chr(code) for code in range(0x11000) if chr(code) not in "\r"]
    text = "x".join(every)
    view = View(text)
    gone = [c for c in every if unicodedata.category(c) == "Cf" or 0x300 <= ord(c) < 0x370]
    assert len(text) - len(view.text) == len({*gone, "\ufdd0"})
    assert "\ufdd0" not in view.text


SHAPES = {
    "windows line ends": (
        "From: Zeb Quux\r\nPhone: 212-555-0187\r\n", ["Zeb Quux", "212-555-0187"]),
    "no-break spaces": ("call (212)\u00a0555\u20110187 now", ["(212)\u00a0555\u20110187"]),
    "narrow no-break spaces": (
        "tel +33\u202f1\u202f99\u202f00\u202f12\u202f34", ["99\u202f00\u202f12"]),
    "full-width digits": ("phone \uff12\uff11\uff12-\uff15\uff15\uff15-\uff10\uff11\uff18\uff17", [
        "\uff15\uff15\uff15-\uff10\uff11\uff18\uff17"]),
    "full-width address": ("to jroe\uff20example.org now", ["jroe\uff20example.org"]),
    "zero-width signs": ("mail j\u200broe@exam\u200bple.org", ["j\u200broe@exam\u200bple.org"]),
    "soft hyphens": ("write to jane.roe@exam\u00adple.org", ["jane.roe@exam\u00adple.org"]),
    "byte order mark": ("\ufeffjroe@example.org", ["jroe@example.org"]),
    "surrogates": ("\ud800 jroe@example.org \udfff", ["jroe@example.org"]),
    "NULs": ("jroe@example.org\x00212-555-0187 phone\x00", ["jroe@example.org"]),
    "header lines": (
        "Reply-To: jroe@example.org (Zeb Quux)\nOrganization: Quux\nCc: Bob Vuux <bv@example.org>",
        ["jroe@example.org", "Zeb Quux", "Bob Vuux", "bv@example.org"]),
    "signature": (
        "thanks\n-- \nZeb Quux\nzquux@example.org\nVoice: (212) 555-0187  Fax: 555-0188\n",
        ["Zeb Quux", "zquux@example.org", "(212) 555-0187", "555-0188"]),
    "signature on one line": (
        "bye\n--\nZeb Quux  |  zquux@example.org  |  +1 212 555 0187\n",
        ["Zeb Quux", "zquux@example.org", "212 555 0187"]),
    "table": (
        "name      | phone         | mail\nZeb Quux  | 212-555-0187  | zq@example.org\n",
        ["212-555-0187", "zq@example.org"]),
    "list": ("* zq@example.org\n* bv@example.org\n1) 212-555-0187\n", [
        "zq@example.org", "bv@example.org", "212-555-0187"]),
    "comma separated": ("4,zq@example.org,212-555-0187,yes", ["zq@example.org"]),
    "colon and no blank": ("Phone:212-555-0187,Fax:212-555-0188", ["212-555-0187", "212-555-0188"]),
    "spelt out": ("reach me: joe at site dot com, or amy [at] cs.example [dot] edu", [
        "joe at site dot com", "amy [at] cs.example [dot] edu"]),
    "spaced at": ("mail zquux @ example.org please", ["zquux @ example.org"]),
    "old networks": ("zq@host.bitnet, zq%node@gw.example.org, zq@host.UUCP", [
        "zq@host.bitnet", "zq%node@gw.example.org", "zq@host.UUCP"]),
    "signed": ("Best regards,\nZeb Quux\n", ["Zeb Quux"]),
    "upper case header": ("FROM: ZEB QUUX\nTO: BOB VUUX\n", ["ZEB QUUX", "BOB VUUX"]),
    "extension": ("phone 212-555-0187 ext. 4711", ["212-555-0187 ext. 4711"]),
    "dots": ("tel. 212.555.0187", ["212.555.0187"]),
    "local number": ("home phone 555-0187, work: 555-0188", ["555-0187", "555-0188"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "gone"), SHAPES.values(), ids=SHAPES)
def test_shapes_of_text(scrubber: Scrubber, text: str, gone: list[str]) -> None:
    scrubbed = scrubber.scrub(text)
    covered = {i for d in scrubbed.decisions for i in range(d.start, d.end)}
    for value in gone:
        at = text.index(value)
        assert covered.issuperset(range(at, at + len(value))), value

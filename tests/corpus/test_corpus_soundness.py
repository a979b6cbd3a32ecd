"""What is counted as no text, against a naive count and against real encodings."""

import pytest

from dpmlm.corpus.soundness import broken_characters

SENTENCE = "Der Bär fraß “süße” Äpfel – für 3 € das Stück, naïve façade, Ångström, NÃO, Âge."


def naive(text):
    """Character by character, without expressions."""
    misread = {bytes([byte]).decode("latin-1") for byte in range(0x80, 0xC0)}
    misread |= {
        bytes([byte]).decode("cp1252")
        for byte in range(0x80, 0xC0)
        if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
    }
    broken, at = 0, 0
    while at < len(text):
        here, following = text[at], text[at + 1 : at + 2]
        if here in "ÂÃ" and following in misread and following:
            broken, at = broken + 2, at + 2
        elif here == "â" and following in ("€", "\x80") and at + 2 < len(text):
            if text[at + 2] == "\n":
                at += 1
                continue
            broken, at = broken + 3, at + 3
        else:
            code = ord(here)
            control = (code < 0x20 and here not in "\t\n\r\f") or 0x7F <= code < 0xA0
            broken, at = broken + (control or here == "\ufffd"), at + 1
    return broken


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE, "", "plain", "tab\tand\r\nlines\n", "日本語の文章です。", "नमस्ते दुनिया", "שלום",
        "🙂🇩🇪", "Việt Nam, Đà Nẵng", "ΑΒΓ", "Привет, мир",
    ],
)  # fmt: skip
def test_text_is_text(text):
    assert broken_characters(text) == naive(text) == 0


@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_utf8_read_as_another_encoding_is_counted(wrong):
    misread = SENTENCE.encode().decode(wrong, errors="replace")
    assert broken_characters(misread) == naive(misread)
    assert broken_characters(misread) / len(misread) > 0.2


def test_what_a_decoder_could_not_read_is_counted():
    text = SENTENCE.encode("latin-1", errors="ignore").decode("utf-8", errors="replace")
    assert broken_characters(text) == naive(text) == text.count("\ufffd") > 5


def test_bytes_of_no_text_are_counted():
    text = bytes(range(256)).decode("latin-1") * 3
    assert broken_characters(text) == naive(text) >= 3 * (27 + 33)
    assert broken_characters("a\x00b") == 1

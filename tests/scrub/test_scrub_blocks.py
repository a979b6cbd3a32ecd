import random

from dpmlm.scrub.blocks import LIMIT, cut


def test_blocks_are_the_text_and_never_too_long() -> None:
    rng = random.Random(1)
    for _ in range(200):
        limit = rng.randrange(1, 60)
        text = "".join(rng.choice("abc  \n\n\u00e9") for _ in range(rng.randrange(300)))
        blocks = list(cut(text, limit))
        assert "".join(b.text for b in blocks) == text
        assert all(1 <= len(b.text) <= max(limit, 1) for b in blocks)
        assert all(text[b.start : b.start + len(b.text)] == b.text for b in blocks)


def test_cuts_prefer_blank_lines_then_line_ends_then_blanks() -> None:
    assert [b.text for b in cut("aaa bbb\n\nccc\nddd eee", 14)] == ["aaa bbb\n\n", "ccc\nddd eee"]
    assert [b.text for b in cut("aaaa bbb\nccc ddd", 12)] == ["aaaa bbb\n", "ccc ddd"]
    assert [b.text for b in cut("aaaa bbb ccc ddd", 10)] == ["aaaa bbb ", "ccc ddd"]
    assert [b.text for b in cut("a" * 25, 10)] == ["a" * 10, "a" * 10, "a" * 5]


def test_short_texts_are_one_block_and_empty_ones_none() -> None:
    text = "paragraph\n\n" * 100
    assert len(text) < LIMIT
    assert [b.text for b in cut(text)] == [text]
    assert list(cut("")) == []

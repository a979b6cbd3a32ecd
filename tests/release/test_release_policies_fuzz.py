"""Any bytes at all give a release or scrub policy, or a UserError, in bounded time and memory."""

import resource
import tempfile
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
import yaml
from fuzzing import JSON, TIMES, fuzz, spoilt

from dpmlm.errors import UserError
from dpmlm.release.policy import load_policy, parse_policy
from dpmlm.scrub.policy import load_policy as load_scrub_policy

RULE = "policy: a/v1\nsummary: s\nrequire:\n  - {id: a, title: t, why: w, metric: plan.x, "
WHOLE = {
    "release": (RULE + "max: 8.0, at: {delta: 1.0e-6}, unit: person, on_missing: fail}\n").encode(),
    "scrub": b"name: n\ndescription: d\nengine: {mode: fast, labels: {PER: PERSON}}\n"
    b"other: {operator: redact, why: w}\nrules:\n"
    b"  - {entity: PERSON, operator: surrogate, threshold: 0.4, why: w}\n"
    b"identifiers: [{number: 1, identifier: i, found_by: [PERSON], out_of_reach: o}]\n",
}
"""Small, as PyYAML takes a tenth of a second for a shipped one."""
PIECES = st.sampled_from(
    [
        b"&a [*a, *a]", b"<<: {max: 1}", b"0x" + b"f" * 5000, b"1" * 5000, b"1:59" * 300, b"1e999",
        b".inf", b"!!python/object:os.system {}", b"!!binary aGk=", b"2001-13-45", b"? [a]\n: b",
        b"\xff\xfe", b"\0", b"[" * 400, b"{a: " * 400, b"- " * 400, b"%YAML 9.9\n---\n", b"---\n",
        b"!!set {a, b}", b"!!omap [a: 1]", b"!!pairs [a: 1]", b"!!timestamp x", b"!!float x",
        b"!!int ''", b"!!null x", b"'\\ud800'", b'"\\ud800"', b'"\\0"', b"equals: ", b"max: ",
    ]
)  # fmt: skip


def takes(kind: str, content: bytes) -> bool:
    """Whether it is a policy; anything but a UserError is a bug."""
    try:
        if kind == "release":
            policy = parse_policy(content, name="p")
            assert len(policy.digest) > 64
            for rule in policy.require:
                assert rule.comparison
        else:
            with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
                file.write(content)
                file.flush()
                policy = load_scrub_policy(file.name)
            policy.model_dump_json()
    except UserError as error:
        str(error)
        return False
    return True


def contents(kind: str) -> st.SearchStrategy[bytes]:
    """A policy with pieces changed or hostile ones put in; any YAML; any rule's field."""
    whole = WHOLE[kind]
    put = st.tuples(st.integers(0, len(whole)), st.integers(0, 30), PIECES)
    trees = JSON.map(lambda tree: yaml.safe_dump(tree).encode(errors="replace"))
    return st.one_of(
        spoilt(whole),
        put.map(lambda p: whole[: p[0]] + p[2] + whole[p[0] + p[1] :]),
        trees,
        st.tuples(st.sampled_from(["max", "equals", "min_rate", "at", "unit"]), JSON | PIECES).map(
            lambda p: RULE.encode() + f"{p[0]}: ".encode() + flow(p[1]) + b"}\n"
        ),
        st.lists(PIECES, max_size=5).map(b"\n".join),
    )


def flow(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 30)
    return text.removesuffix("\n").removesuffix("...").encode(errors="replace")


@pytest.mark.parametrize("seconds", TIMES)
@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_fuzz(kind: str, seconds: float) -> None:
    assert takes(kind, WHOLE[kind])

    def check(content: bytes) -> None:
        takes(kind, content)

    assert fuzz(seconds, check, contents(kind)) > 0


BOMBS = {
    "billion laughs": "a: &a [x, x]\n"
    + "".join(f"{c}: &{c} [*{b}, *{b}]\n" for b, c in zip("abcdefghij", "bcdefghijk")),
    "deep lists": "[" * 100_000,
    "deep maps": "{a: " * 50_000,
    "deep blocks": "- " * 50_000 + "x",
    "deep value": RULE + "equals: " + "[" * 150 + "]" * 150 + "}\n",
    "a long number": RULE + "max: " + "9" * 20_000 + "}\n",
    "a long hexadecimal": RULE + "max: 0x" + "f" * 20_000 + "}\n",
    "a hexadecimal of any type": RULE + "equals: 0x" + "f" * 20_000 + "}\n",
    "a long binary": RULE + "equals: 0b" + "1" * 20_000 + "}\n",
    "a number to base 60": RULE + "equals: 1" + ":59" * 20_000 + "}\n",
    "a float to base 60": RULE + "equals: 1" + ":59" * 20_000 + ".5}\n",
    "keys alike in value": RULE + "equals: {1: a, 0x1: b}}\n",
    "a key twice": RULE + "max: 1, max: 2}\n",
    "a long key": RULE + "m" * 20_000 + ": 1}\n",
    "many keys": RULE + ", ".join(f"k{i}: 1" for i in range(20_000)) + "}\n",
    "a number as key": RULE + "0x" + "f" * 9000 + ": 1}\n",
    "many rules of one name": RULE + "max: 1}\n"
    + "".join("  - {id: a, title: t, why: w, metric: plan.x, max: 1}\n" for _ in range(3000)),
    "too long": "#" * (1 << 21),
}  # fmt: skip
SLOW = ("many keys", "many rules of one name", "deep lists", "deep maps", "too long")


def peak() -> int:
    """Most memory that this process ever had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize(
    "bomb", [pytest.param(one, marks=[pytest.mark.full] * (one in SLOW)) for one in BOMBS]
)
@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_what_is_made_to_exhaust_is_refused_in_time(kind: str, bomb: str) -> None:
    before, started = peak(), time.process_time()
    assert not takes(kind, BOMBS[bomb].encode()) or bomb == "deep value"
    assert time.process_time() - started < 10
    assert peak() - before < 500 << 20


def test_of_a_file_without_end_a_page_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with open(path, "wb") as file:
        file.truncate(1 << 36)  # 64 GiB of zeros that take no room on the disk
    for load in (load_policy, load_scrub_policy):
        with pytest.raises(UserError, match="longer than"):
            load(path)

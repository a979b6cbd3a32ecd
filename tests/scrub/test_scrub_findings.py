import random

from dpmlm.scrub.findings import Finding, resolve


def _finding(start: int, end: int, entity: str = "A", score: float = 0.5) -> Finding:
    return Finding(start, end, entity, "R", score)


def _naive_stretches(findings: list[Finding]) -> list[tuple[int, int]]:
    """Merge any two that share a character, until nothing changes."""
    stretches = {(f.start, f.end) for f in findings}
    while True:
        pair = next(
            ((a, b) for a in stretches for b in stretches if a < b and a[0] < b[1] and b[0] < a[1]),
            None,
        )
        if pair is None:
            return sorted(stretches)
        stretches -= set(pair)
        stretches.add((min(p[0] for p in pair), max(p[1] for p in pair)))


def test_stretches_equal_the_naive_merge() -> None:
    rng = random.Random(2)
    for _ in range(300):
        findings = []
        for _ in range(rng.randrange(8)):
            start = rng.randrange(30)
            findings.append(_finding(start, start + rng.randrange(1, 9), rng.choice("ABC")))
        resolved = resolve(findings)
        assert [(f.start, f.end) for f in resolved] == _naive_stretches(findings)
        assert resolve(reversed(findings)) == resolved


def test_the_surest_then_the_longest_gives_the_entity() -> None:
    weak, strong = _finding(0, 9, "LONG", 0.4), _finding(3, 6, "SURE", 0.9)
    assert resolve([weak, strong]) == [Finding(0, 9, "SURE", "R", 0.9, mixed=True)]
    assert resolve([_finding(0, 3, "A"), _finding(2, 9, "B")])[0].entity == "B"
    assert resolve([_finding(0, 3, "B"), _finding(0, 3, "A")])[0].entity == "A"


def test_a_stretch_is_mixed_where_the_surest_finding_is_not_all_of_it() -> None:
    sure = _finding(3, 6, "SURE", 0.9)
    assert resolve([sure, _finding(0, 4, "NAME")])[0].mixed
    assert not resolve([sure, _finding(0, 4, "SURE")])[0].mixed
    assert not resolve([sure, _finding(4, 5, "NAME")])[0].mixed
    assert not resolve([sure])[0].mixed


def test_touching_findings_stay_apart() -> None:
    assert len(resolve([_finding(0, 3), _finding(3, 5)])) == 2

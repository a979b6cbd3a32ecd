"""The report: everything an auditor is owed, nothing private in the public copy, and it renders."""

import copy
import math
import re
from html.parser import HTMLParser

import pytest

from audits.verdict import power_of_tests
from dpmlm.release import decide, lineage, load_policy, model_card, render_report, words
from dpmlm.release.charts import (
    Mark,
    bar_list,
    delta_chart,
    exposure_chart,
    guess_chart,
    line_chart,
    ticks,
)

SECTIONS = [
    "verdict",
    "promise",
    "attacks",
    "rules",
    "text",
    "training",
    "every-attack",
    "guidance",
    "threats",
    "digests",
]
VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}


class _Page(HTMLParser):
    """Checks nesting; collects ids, tags, text and attributes."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.tags, self.text, self.links = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "action", "data"):
                self.links.append(value)
            assert not name.startswith("on")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())


@pytest.fixture
def failing(facts):
    """A model that leaks, audited without an untrained model."""
    audit = facts["audit"]
    audit["subjects"]["target"] = copy.deepcopy(audit["subjects"]["control"])
    audit["subjects"]["untrained"] = None
    audit["power"] = power_of_tests(audit["subjects"])
    return facts


def test_the_auditors_page_has_every_section(report_data):
    page = _Page(render_report(report_data(), private=True))
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    assert page.words.index("PASS") < page.words.index("What is promised")
    for heading in (
        "What is promised",
        "Did anybody try to break it?",
        "Rules",
        "What happened to the text",
        "Training",
        "Every attack, run or not",
        "Digests and versions",
    ):
        assert heading in page.words
    for figure in ("108 of 200", "0 of 496", "4,123", "183.1", "needed: 197", "301"):
        assert figure in page.words, figure


def test_the_claim_and_every_rule_stand_in_full(report_data, plan, claim):
    data = report_data()
    text = _Page(render_report(data, private=False)).words
    assert " ".join(claim.sentence.split()) in text
    for exclusion in claim.fields["not_covered"]:
        assert exclusion in text
    for rule in data.decision.rules:
        assert rule.id in text
        assert rule.title in text
        assert rule.why in text
        assert " ".join(words.shown(rule.observed).split()) in text


def test_it_is_self_contained(report_data):
    for private in (True, False):
        html = render_report(report_data(), private=private)
        page = _Page(html)
        assert all(link.startswith("#") for link in page.links)
        assert {link[1:] for link in page.links} <= set(page.ids)
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert "url(" not in html
        assert "@import" not in html
        assert "http://" not in html
        assert "https://" not in html


def test_forbidden_words(report_data, facts, whole_evidence):
    facts["audit"] = whole_evidence
    data = report_data()
    pages = [render_report(data, private=private) for private in (True, False)]
    for page in [*pages, model_card(data)]:
        assert "anonym" not in page.lower()
        assert "complian" not in page.lower()


def test_a_test_that_the_evidence_declares_has_a_row_whatever_its_name(report_data, facts):
    audit = facts["audit"]
    audit["declared"]["tests"] = [*audit["declared"]["tests"], "fresh_test"]
    audit["subjects"]["target"]["fresh_test"] = {"rejected": False, "p_value": 0.73}
    audit["subjects"]["control"]["fresh_test"] = {"rejected": True, "p_value": 1e-9}
    page = _Page(render_report(report_data(), private=False)).words
    assert "0 of 4" in page
    assert page.count("fresh test") >= 2
    assert "0.73" in page


def test_the_public_copy_holds_no_private_figure(report_data):
    html = render_report(report_data(), private=False)
    for trace in (
        ">4,123<",
        "PHONE_NUMBER 611",
        "183.1",
        "8,717",
        "McNemar",
        "188.7 s",
        "nats a token",
    ):
        assert trace in render_report(report_data(), private=True)
        assert trace not in html, trace
    assert 'data-audience="auditor"' not in html
    assert 'data-audience="public"' in html
    assert "auditor’s copy has more" in html


def test_private_rule_values_are_withheld_in_the_public_copy(report_data, facts, now):
    from dpmlm.release.policy import parse_policy

    text = (
        "policy: t/v1\nsummary: t\nrequire:\n  - {id: v, title: t, why: w, "
        "metric: audit.verbatim.hits.train, max: 4711}\n"
    )
    facts["audit"]["verbatim"]["hits"]["train"] = 3917
    decision = decide(parse_policy(text.encode(), name="t"), facts, now=now)
    data = report_data(decision=decision, evidence=facts["audit"])
    assert "3,917" in render_report(data, private=True)
    public = render_report(data, private=False)
    assert "3,917" not in public
    assert "3917" not in public


def test_a_private_page_needs_private_figures(report_data):
    with pytest.raises(ValueError, match="private"):
        render_report(report_data(private=None), private=True)


def test_everything_is_escaped(report_data):
    evil = "<script>alert(1)</script>\"'&"
    data = report_data(
        name=evil,
        digests={evil: evil},
        versions={evil: evil},
        training={evil: evil},
        statement={"sentence": evil, "note": evil, "not_covered": [evil], "epsilon": 8, "delta": 0},
    )
    data.private.scrubbed[evil] = 3
    html = render_report(data, private=True)
    assert "<script" not in html
    _Page(html)


def test_same_data_gives_the_same_bytes(report_data):
    data = report_data()
    assert render_report(data, private=True) == render_report(data, private=True)


def test_a_failing_report_says_why_first(report_data, failing):
    page = _Page(render_report(report_data(), private=True)).words
    banner = page[: page.index("What is promised")]
    assert "FAIL" in banner
    broken = "Can more planted secrets be read out of the model than the promise allows?"
    assert f"{broken} Does not hold." in banner
    assert "Found 470, required is at most 0." in banner
    assert banner.index(broken) < banner.index("noticed a leaky model?")
    assert "would have meant" in banner
    assert "secrets came out" in page


def test_missing_audits_are_said(report_data, facts):
    facts["audit"] = {}
    for evidence in (None, {}):
        page = _Page(render_report(report_data(evidence=evidence), private=False)).words
        assert "INCONCLUSIVE" in page
        assert "No audit was run on this model" in page
        assert "Missing: there is no audit" in page


def test_a_run_without_a_promise(report_data, facts):
    from dpmlm.privacy.planning import make_plan

    plan = make_plan(
        epsilon=math.inf, delta=1e-6, units=100, expected_batch_size=10, steps=20, max_grad_norm=1
    ).to_json()
    facts["ledger"]["epsilon"] = "inf"
    target = facts["audit"]["subjects"]["target"]
    for name in ("gating", "exposure"):
        target[name] |= {"applicable": False, "reason": "no claim", "rejected": None}
    target["exposure"]["ceiling_bits"] = None
    target["canary_extraction"] |= {"extracted": 412, "rejected": None}
    data = report_data(
        plan=plan,
        statement={"sentence": "s", "note": "", "not_covered": [], "epsilon": "inf", "delta": 1e-6},
        epsilon_curve=[(1, math.inf), (2, math.inf)],
    )
    page = _Page(render_report(data, private=True)).words
    assert "Nothing is promised" in page
    assert "412 of 496" in page
    assert "secrets came out" in page


def test_evidence_without_control_or_canaries(report_data, facts):
    audit = facts["audit"]
    audit["subjects"]["control"] = None
    part = {"applicable": False, "reason": "the run had no canaries"}
    audit["subjects"]["target"] = {
        "model_digest": "sha256:0",
        "gating": part,
        "exposure": part,
        "canary_extraction": part,
        "lower_bound": part,
        "rejected_by": [],
    }
    page = _Page(render_report(report_data(), private=False)).words
    assert "the run had no canaries" in page
    assert "not run" in page


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0, 8.0, 20.0])
@pytest.mark.parametrize("prior", [0.001, 0.01, 0.5, 0.9])
def test_posterior_is_bayes_rule(prior, epsilon):
    odds = prior / (1 - prior) * math.exp(epsilon)
    assert words.posterior(prior, epsilon, 0) == pytest.approx(odds / (1 + odds))
    assert words.posterior(prior, math.inf, 0) == 1.0


def test_numbers_for_people():
    assert words.shown(True) == "yes"
    assert words.shown("inf") == "∞ (no limit)"
    assert words.shown([]) == "none"
    assert words.shown(1234567) == "1,234,567"
    assert words.shown(1e-6) == "1\u00a0×\u00a010⁻⁶"
    assert words.percent(0.99999) == "more than 99.9 %"
    assert words.percent(1e-9) == "less than 0.1 %"
    assert words.percent(0.747) == "74.7 %"


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (0, 8.4), (5, 9), (1, 150), (0, 0.013), (3, 3)):
        found = ticks(low, high)
        assert all(low <= tick <= high for tick in found)
        assert 1 <= len(found) <= 11
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(1, 20, 8) == [5, 10, 15, 20]


def _floats(pattern, svg):
    return [float(value) for value in re.findall(pattern, svg)]


def test_a_line_chart_draws_its_points_in_order():
    svg = line_chart([(1, 2.0), (2, 4.0), (3, 3.0)], title="t", x_label="step", y_label="y")
    points = re.search(r'points="([^"]+)"', svg).group(1).split()
    xs, ys = zip(*(map(float, point.split(",")) for point in points), strict=True)
    assert xs == tuple(sorted(xs))
    assert ys[1] < ys[2] < ys[0]  # up is smaller in SVG
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_a_flat_line_and_a_line_at_its_limit_can_be_drawn():
    limit = Mark(8.0, "budget")
    for points in ([(1, 8.0), (2, 8.0)], [(0, 0.0), (5, 0.0)]):
        svg = line_chart(points, title="t", x_label="step", y_label="y", limit=limit)
        assert "nan" not in svg
        assert 'class="limit"' in svg


def test_histogram_bars_are_proportional_to_shares():
    histogram = {"edges": [0, 1, 2], "in": [3, 1], "out": [0, 10]}
    svg = exposure_chart(histogram, title="t", mean=0.5, marks=[Mark(1.5, "ceiling")])
    heights = {
        kind: _floats(rf'<rect class="{kind}"[^>]* height="([\d.]+)"', svg)
        for kind in ("in", "out")
    }
    assert heights["in"][0] / heights["in"][1] == pytest.approx(3, rel=0.01)
    assert heights["out"] == [pytest.approx(heights["in"][0] / 0.75, rel=0.01)]
    assert "ceiling" in svg


@pytest.mark.parametrize("places", [(3, 24), (24, 3), (3, 6), (30, 33), (17, 19), (1, 35)])
def test_no_line_runs_through_the_label_of_another(places):
    histogram = {"edges": list(range(37)), "in": [1] * 36, "out": [1] * 36}
    marks = [Mark(place, "highest mean allowed: 24.5") for place in places]
    svg = exposure_chart(histogram, title="t", mean=0.5, marks=marks)
    lines = re.findall(r'<line class="limit" x1="([\d.]+)" x2="[\d.]+" y1="([\d.]+)"', svg)
    labels = re.findall(r'<text class="label( end)?" x="([\d.]+)" y="([\d.]+)"', svg)
    assert len(lines) == len(labels) == 2
    for end, x, y in labels:
        other = float(x) + (-1 if end else 1) * 26 * 6.5
        assert 0 < other < 720
        low, high = sorted((float(x), other))
        assert not any(low < float(at) < high and float(top) < float(y) for at, top in lines)


def test_guess_bars_are_proportional():
    rows = [("a", 50, 200, 198), ("b", 100, 200, None)]
    svg = guess_chart(rows, title="t")
    widths = _floats(r'<rect class="in"[^>]* width="([\d.]+)"', svg)
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.01)
    assert svg.count('<line class="needed"') == 1


def test_delta_runs_in_powers_of_ten():
    curves = {"RDP": [(1e-8, 9.0), (1e-7, 8.0)], "PLD": [(1e-8, 7.0), (1e-7, 6.5), (1e-5, 5.5)]}
    svg = delta_chart(curves, title="t", claimed=(3e-7, 6.2))
    lines = re.findall(r'<polyline class="([\w ]+)" points="([^"]+)"', svg)
    assert [kind for kind, _ in lines] == ["curve", "curve dashed"]
    xs, ys = zip(*[map(float, p.split(",")) for p in lines[1][1].split()], strict=True)
    assert xs[2] - xs[1] == pytest.approx(2 * (xs[1] - xs[0]), abs=0.2)
    assert ys[0] < ys[1] < ys[2]
    at, height = (
        _floats(r'<circle class="dot" c[xy]="([\d.]+)"', svg),
        _floats(r'cy="([\d.]+)"', svg),
    )
    assert at[0] == pytest.approx(xs[0] + (xs[1] - xs[0]) * (math.log10(3e-7) + 8), abs=0.2)
    assert ys[1] < height[0] < ys[2]
    assert "10⁻⁸" in svg
    assert "6.2 at 3.0 × 10⁻⁷" in svg


def test_each_curve_is_explained_and_the_claim_stands_in_it(report_data):
    page = _Page(render_report(report_data(), private=False)).words
    for said in ("step by step", "the chance with which the limit may fail", "at 10⁻⁶"):
        assert said in page
    assert (
        "the chance with which"
        not in _Page(render_report(report_data(delta_curve={}), private=False)).words
    )


@pytest.mark.parametrize("order", [("corpus", "scrub", "dedup"), ("corpus", "dedup", "scrub")])
def test_the_lineage_is_drawn_in_the_order_of_the_run(order):
    names = [*order, "tokens", "canaries", "training", "audit"]
    digests = {name: "sha256:" + f"{at}{at + 1}" * 32 for at, name in enumerate(names)}
    svg = lineage.draw({"settings": "sha256:" + "f" * 64, **digests})
    assert re.findall(r'<text class="value"[^>]*>([^<]+)<', svg) == [*names, "bundle"]
    assert re.findall(r'<text class="tick mono"[^>]*>([0-9]+)<', svg) == [
        digest[7:23] for digest in digests.values()
    ]
    assert svg.count('class="arrow"') == len(names)
    assert "ffff" not in svg
    corners = [*map(float, re.findall(r'<rect class="stage" x="([\d.]+)"', svg))]
    assert corners[:4] == sorted(corners[:4])
    assert corners[4:] == corners[3::-1]  # the second row runs back
    assert lineage.draw({"settings": "sha256:0"}) is None


def test_every_chart_speaks_to_screen_readers(report_data):
    html = render_report(report_data(), private=True)
    charts = re.findall(r'<svg class="chart".*?</svg>', html, flags=re.S)
    assert len(charts) == 8
    for chart in charts:
        title, description = re.search(r'aria-labelledby="(\w+) (\w+)"', chart).groups()
        assert re.search(rf'<title id="{title}">[^<]+</title>', chart)
        assert re.search(rf'<desc id="{description}">[^<]+</desc>', chart)
    assert "PERSON 4123" in bar_list([("PERSON", 4123)], title="t")


def test_model_card_shows_failures_and_nothing_private(report_data, failing):
    card = model_card(report_data(), intended_use="Research.", base="nothing")
    assert card.startswith("# clinic notes 2026")
    assert "**Verdict: FAIL**" in card
    assert "Found 470, required is at most 0." in card
    assert "Research." in card
    assert "&#" not in card
    for trace in ("4123", "McNemar", "183.1", "8717"):
        assert trace not in card


def test_the_policy_that_decided_is_named(report_data):
    text = _Page(render_report(report_data(), private=False)).words
    assert "internal/v1" in text
    assert load_policy("internal").digest in text


def test_the_model_card_is_one_page_with_every_declared_test_on_it(report_data, facts):
    audit = facts["audit"]
    audit["declared"]["tests"] = [*audit["declared"]["tests"], "fresh_test"]
    audit["subjects"]["target"]["fresh_test"] = {"applicable": False, "reason": "no luck"}
    audit["subjects"]["target"]["lower_bound"] |= {"one_run": 0.12, "fdp_one_run": 0.2}
    card = model_card(report_data())
    assert "108 of 200 guesses right" in card
    assert "0 of 496 secrets read out" in card
    assert "fresh test no luck." in card
    assert "at least 0.12 (by a calculation that assumes a Gaussian-shaped curve 0.20)" in card
    assert len(card.splitlines()) <= 60  # of a printed page


@pytest.mark.parametrize(
    ("is_", "said"),
    [
        ("given", "the reference model"),
        ("control", "the leaky twin, which never read it"),
        ("untrained", "the untrained model"),
    ],
)
def test_whom_verbatim_extraction_was_held_against_is_named(report_data, evidence, is_, said):
    evidence["verbatim"]["reference"] = {"model_digest": "sha256:" + "4" * 64, "is": is_}
    text = _Page(render_report(report_data(), private=True)).words
    assert f"and with {said}." in text
    assert f"from the training text, by {said}" in text
    assert f"Recovered by this model and not by {said}: 3" in text
    assert "public model" not in text


@pytest.fixture
def unscored(facts):
    """A model whose training ran away, as the audit describes it."""
    audit, part = facts["audit"], {"applicable": False, "reason": "a score is not finite"}
    tests = dict.fromkeys(("exposure", "canary_extraction", "lower_bound"), part)
    audit["subjects"]["target"] |= tests | {
        "gating": part | {"canaries": 1000}, "rejected_by": [],
    }  # fmt: skip
    audit["verbatim"] = {"label": "private"} | part
    return facts


def test_a_model_that_could_not_be_scored_is_inconclusive_and_the_page_says_why(
    report_data, unscored
):
    for private in (True, False):
        page = _Page(render_report(report_data(), private=private)).words
        assert page.count("could not be tried") >= 4
        assert "a score is not finite" in page
        assert "1,000 made-up secrets were drawn" in page
        for wrong in ("none were planted", "no promise to go beyond", "no promise to test"):
            assert wrong not in page
    decision = report_data().decision
    assert decision.verdict == "INCONCLUSIVE"
    assert not decision.of("fail", "error")
    assert "a score is not finite" in model_card(report_data())

"""The report: everything an auditor is owed, nothing private in the public copy, and it renders."""

import math

import pytest
from html_page import Page

from dpmlm.release import decide, load_policy, model_card, render_report
from dpmlm.release.report import words

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


def test_the_auditors_page_has_every_section(report_data):
    page = Page(render_report(report_data(), private=True))
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
    text = Page(render_report(data, private=False)).words
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
        page = Page(html)
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
    page = Page(render_report(report_data(), private=False)).words
    assert "0 of 4" in page
    assert page.count("fresh test") >= 2
    assert "0.73" in page


def test_the_public_copy_holds_no_private_figure(report_data):
    data = report_data()
    whole, html = (render_report(data, private=private) for private in (True, False))
    for trace in (
        ">4,123<",
        "PHONE_NUMBER 611",
        "183.1",
        "8,717",
        "McNemar",
        "188.7 s",
        "nats a token",
    ):
        assert trace in whole
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
    Page(html)


def test_same_data_gives_the_same_bytes(report_data):
    data = report_data()
    assert render_report(data, private=True) == render_report(data, private=True)


def test_a_failing_report_says_why_first(report_data, failing):
    page = Page(render_report(report_data(), private=True)).words
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
        page = Page(render_report(report_data(evidence=evidence), private=False)).words
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
    page = Page(render_report(data, private=True)).words
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
    page = Page(render_report(report_data(), private=False)).words
    assert "the run had no canaries" in page
    assert "not run" in page


def test_the_policy_that_decided_is_named(report_data):
    text = Page(render_report(report_data(), private=False)).words
    assert "internal/v1" in text
    assert load_policy("internal").digest in text


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
    text = Page(render_report(report_data(), private=True)).words
    assert f"and with {said}." in text
    assert f"from the training text, by {said}" in text
    assert f"Recovered by this model and not by {said}: 3" in text
    assert "public model" not in text


def test_a_model_that_could_not_be_scored_is_inconclusive_and_the_page_says_why(
    report_data, unscored
):
    for private in (True, False):
        page = Page(render_report(report_data(), private=private)).words
        assert page.count("could not be tried") >= 4
        assert "a score is not finite" in page
        assert "1,000 made-up secrets were drawn" in page
        for wrong in ("none were planted", "no promise to go beyond", "no promise to test"):
            assert wrong not in page
    decision = report_data().decision
    assert decision.verdict == "INCONCLUSIVE"
    assert not decision.of("fail", "error")
    assert "a score is not finite" in model_card(report_data())

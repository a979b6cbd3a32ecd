"""Policies: the shipped ones say what was agreed, and nothing unknown gets in."""

import math
from pathlib import Path

import pytest
import yaml

from audits.subject import TESTS
from dpmlm.errors import UserError
from dpmlm.release import load_policy, policy_names
from dpmlm.release.policy import parse_policy

RULE = """
  - id: dp.epsilon
    title: Is the promise strong enough?
    metric: ledger.epsilon
    why: Because.
"""


def _policy(rule_lines: str, head: str = "policy: mine/v1\nsummary: For nobody.\n") -> bytes:
    return (head + "require:" + RULE + rule_lines).encode()


def _by_id(name):
    return {rule.id: rule for rule in load_policy(name).require}


EPSILON = {"internal": 8, "internal-recall": 8, "partner": 3, "public": 1, "research": 10}
RECALL = ("scrub.recall.",)
POWER = {f"audit.power.{test}" for test in TESTS}


def test_shipped_policies_are_the_agreed_ones():
    assert policy_names() == sorted(EPSILON)
    for name, epsilon in EPSILON.items():
        rules, strict = _by_id(name), name == "public"
        assert load_policy(name).policy == f"{name}/v1"
        assert rules["dp.epsilon"].max == epsilon
        fixed = {rule.id for rule in rules.values() if not rule.waivable}
        promise = {key for key in rules if strict and key.startswith("dp.")}
        assert fixed == promise | {"dp.private"}
        assert rules["dp.delta"].max == (1e-6 if strict else 1e-5)
        assert rules["dp.private"].equals is True
        assert rules["dp.unit"].equals is True
        assert rules["dp.noise_source"].equals is True
        assert rules["ledger.intact"].equals is True
        assert rules["audit.gating"].equals is False
        assert rules["audit.exposure"].equals is False
        assert rules["audit.extraction"].equals is False
        assert rules["audit.extracted"].max == 0
        assert rules["audit.canaries"].min == (300 if strict else 100)
        softened = {rule.id for rule in rules.values() if rule.on_fail == "inconclusive"}
        power = POWER if strict else {"audit.power"}
        assert {key for key in softened if not key.startswith(RECALL)} == power | {
            "audit.canaries",
            "audit.untrained",
            "audit.extracted",
            "audit.mean_exposure",
            "audit.reversed",
            "audit.tokens",
        }


@pytest.mark.parametrize("name", policy_names())
def test_what_chance_decides_makes_fail_by_the_shared_budget_alone(name):
    """Of the audit's rules those alone make FAIL that read what Holm rejects."""
    rules = _by_id(name).values()
    hard = [rule.metric for rule in rules if rule.on_fail == "fail"]
    assert [metric for metric in hard if metric.startswith("audit.")] == [
        f"audit.subjects.target.{test}.rejected" for test in TESTS
    ]


@pytest.mark.parametrize("name", ["partner", "public", "research"])
def test_shipped_policies_differ_in_the_agreed_rules_alone(name):
    one, other = _by_id("internal"), _by_id(name)
    words = {"why", "title", "waivable"}
    differing = {
        key
        for key in one.keys() & other.keys()
        if one[key].model_dump(exclude=words) != other[key].model_dump(exclude=words)
    }
    strict = {"dp.delta", "audit.canaries"} if name == "public" else set()
    assert differing == {"dp.epsilon"} | strict
    assert one.keys() ^ other.keys() == (POWER | {"audit.power"} if strict else set())
    assert [rule.metric for key, rule in other.items() if key in POWER] == [
        f"audit.power.tests.{test}.power" for test in TESTS if strict
    ]


def test_the_documented_table_is_that_of_the_shipped_policies():
    """And what an even bet can become is computed from each epsilon."""
    text = (Path(__file__).parents[2] / "docs/claim.md").read_text()
    section = text.split("## Whom a release is for")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if "| `" in line]
    assert {row[0].strip("`"): row[2:] for row in rows} == {
        name: [
            f"{rules['dp.epsilon'].max:g}",
            f"{rules['dp.delta'].max:g}",
            f"{rules['audit.canaries'].min:g}",
            "one test" if "audit.power" in rules else "each of three",
        ]
        for name, rules in ((name, _by_id(name)) for name in policy_names())
    }
    odds = [math.exp(epsilon) for epsilon in sorted(set(EPSILON.values()), reverse=True)]
    sure = [f"{100 * odd / (1 + odd):.{digits}f}" for odd, digits in zip(odds, (3, 2, 0, 0))]
    assert f"{sure[0]}, {sure[1]}, {sure[2]} and {sure[3]} % sure" in " ".join(section.split())


def test_recall_is_asked_for_by_one_shipped_policy_alone():
    one, other = _by_id("internal"), _by_id("internal-recall")
    added = {key: rule for key, rule in other.items() if key not in one}
    assert {key: other[key] for key in one} == one
    assert [rule.metric for rule in added.values()] == [
        "scrub.recall.annotation",
        "scrub.recall.elsewhere",
        "scrub.recall.documents",
        "scrub.recall.direct.of",
        "scrub.recall.direct",
        "scrub.recall.all",
    ]
    assert [rule.min_rate for rule in added.values() if rule.min_rate] == [0.95, 0.8]
    softened = {key for key, rule in added.items() if rule.on_fail == "inconclusive"}
    assert softened == set(added) - {"scrub.recall.direct", "scrub.recall.all"}
    assert all(rule.on_missing == "inconclusive" for rule in added.values())


def test_every_shipped_rule_has_a_comment_before_it():
    from importlib import resources

    for name in policy_names():
        text = (resources.files("policies") / "release" / f"{name}.yaml").read_text()
        lines = text.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("  - id:")]
        assert len(starts) == len(load_policy(name).require)
        assert all(lines[number - 1].strip().startswith("#") for number in starts)


def test_text_and_digest_are_of_the_file_as_read(tmp_path):
    data = _policy("    max: 8 # a comment\n")
    path = tmp_path / "mine.yaml"
    path.write_bytes(data)
    policy = load_policy(path)
    assert policy.text.encode() == data
    assert policy.digest == parse_policy(data, name="x").digest
    assert policy.digest != parse_policy(data.replace(b"comment", b"remark"), name="x").digest


def test_a_number_without_a_dot_is_a_number():
    assert yaml.safe_load("1e-5") == "1e-5"
    policy = parse_policy(_policy("    max: 1e-5\n"), name="x")
    assert policy.require[0].max == 1e-5


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (_policy("    max: 8\n    on_mising: fail\n"), "did you mean on_missing"),
        (_policy("    max: 8\n    min: 1\n"), "exactly one of"),
        (_policy(""), "exactly one of"),
        (_policy("    max_ref: audit.verbatim.hits.train\n"), "a threshold is not"),
        (_policy("    max:\n"), "no value"),
        (_policy("    max: yes\n"), "rule dp.epsilon: max"),
        (_policy("    max: .inf\n"), "finite"),
        (_policy("    max: .nan\n"), "finite"),
        (_policy("    max: eight\n"), "valid number"),
        (_policy("    max: 8\n    on_fail: pass\n"), "'fail' or 'inconclusive'"),
        (_policy("    max: 8\n    on_missing: pass\n"), "'inconclusive' or 'fail'"),
        (_policy("    max: 8\n    max: 80\n"), "given twice"),
        (_policy("    max: 8\n" + RULE + "    max: 80\n"), "two rules are called dp.epsilon"),
        (_policy("    max: 8\n    unit: household\n"), "'document', 'person' or 'sequence'"),
        (_policy("    max: 8\n", head="policy: mine\nsummary: x\n"), "policy = 'mine'"),
        (_policy("    max: 8\nwaivers: []\n"), "there is no such key"),
        (b"policy: mine/v1\nsummary: x\nrequire: []\n", "at least 1 item"),
        (b"require: [\n", "line"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"", "the whole file"),
        (b"- 1\n", "the whole file"),
    ],
)
def test_bad_policies_are_refused_with_the_place(data, says):
    with pytest.raises(UserError) as caught:
        parse_policy(data, name="policy.yaml")
    assert says in str(caught.value)
    assert "policy.yaml" in str(caught.value)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="internal, internal-recall, partner, public"):
        load_policy(tmp_path / "lenient")

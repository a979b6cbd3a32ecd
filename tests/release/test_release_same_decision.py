"""The same inputs give the same decision, byte for byte, whatever process decides."""

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from dpmlm.canonical import canonical_json
from dpmlm.release import decide, load_policy
from dpmlm.release.explanation import explain

POLICIES = ("internal-recall", "public")
"""Together they have every kind of rule."""
DECIDE = f"""
import contextlib, json, locale, random, sys
from datetime import datetime
with contextlib.suppress(locale.Error):
    locale.setlocale(locale.LC_ALL, "")
from dpmlm.canonical import canonical_json
from dpmlm.privacy import accountants
from dpmlm.release.explanation import explain
from dpmlm.release.gate import decide
from dpmlm.release.policy import load_policy
accountants.rough_epsilon = lambda *_: 8.0  # it sets a grid, and Opacus, which has it, loads torch
facts = json.load(sys.stdin)
for name in {POLICIES!r}:
    policy = load_policy(name)
    decision = decide(policy, facts, now=datetime.fromisoformat(sys.argv[1]))
    print(canonical_json(decision.to_json()).decode())
    print(json.dumps([one.to_json() for one in explain(policy, decision)], sort_keys=True))
assert "torch" not in sys.modules
print(hash("dpmlm"), json.dumps(locale.localeconv()), file=sys.stderr)
"""
PLACES = [
    {"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC"},
    {"PYTHONHASHSEED": "1", "LC_ALL": "de_DE.UTF-8", "TZ": "Pacific/Kiritimati", "PYTHONUTF8": "0"},
    {"PYTHONHASHSEED": "2", "LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns"},
]
NOW = "2026-03-29T03:30:00+02:00"


def shuffled(value, rng):
    """The same JSON value with the keys of every object in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def decided(facts):
    """What a process prints, computed here."""
    lines = []
    for name in POLICIES:
        policy = load_policy(name)
        decision = decide(policy, facts, now=datetime.fromisoformat(NOW))
        lines.append(canonical_json(decision.to_json()).decode())
        lines.append(
            json.dumps([one.to_json() for one in explain(policy, decision)], sort_keys=True)
        )
    return "\n".join(lines) + "\n"


@pytest.mark.full
def test_fresh_processes_and_shuffled_facts_give_the_same_decision(facts, monkeypatch):
    monkeypatch.setattr("dpmlm.privacy.accountants.rough_epsilon", lambda *_: 8.0)
    facts["scrub"] = {"recall": {"direct": {"found": 96, "of": 120}, "annotation": "blind"}}
    facts["audit"]["subjects"]["untrained"]["model_digest"] = "größer als 1,5"
    here, rng = decided(facts), random.Random(4)
    assert here.count("\n") == 2 * len(POLICIES)
    assert {json.loads(line)["decided"] for line in here.splitlines()[::2]} == {
        datetime.fromisoformat(NOW).astimezone(UTC).isoformat()
    }
    for _ in range(2):
        assert decided(shuffled(facts, rng)) == here
    hashes = set()
    for place in PLACES:
        done = subprocess.run(
            [sys.executable, "-c", DECIDE, NOW],
            input=json.dumps(shuffled(facts, rng)),
            env={**os.environ, **place, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == here
        hashes.add(done.stderr.split()[0])
    assert len(hashes) == len(PLACES)  # the seeds did make another order of sets

"""The one digest that names a release."""

import hashlib
import json

import pytest

from dpmlm.release.inventory import release_digest

FILES = {
    "model/weights.sealed": {"digest": "sha256:aa", "size": 1},
    "plan.json": {"digest": "sha256:bb", "size": 2},
    "model/recipients.json": {"digest": "sha256:cc", "size": 3},
    "attestations/provenance.dsse.json": {"digest": "sha256:dd", "size": 4},
}


def test_it_is_the_hash_of_names_and_digests():
    text = json.dumps({"model/weights.sealed": "sha256:aa", "plan.json": "sha256:bb"})
    by_hand = hashlib.sha256(text.replace(" ", "").encode()).hexdigest()
    assert release_digest(FILES) == "sha256:" + by_hand


@pytest.mark.parametrize("name", FILES)
def test_recipients_and_statements_may_change_and_nothing_else(name):
    changed = {**FILES, name: {**FILES[name], "digest": "sha256:ee"}}
    said = name == "model/recipients.json" or name.startswith("attestations/")
    assert (release_digest(changed) == release_digest(FILES)) is said

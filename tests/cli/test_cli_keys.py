"""`dpmlm keys`: drawing, looking at and rotating keys, as a platform engineer types it."""

import json
import os
import re
from pathlib import Path

import pytest
from variants import rest_in_full

from dpmlm.artifacts import (
    SealedFolder,
    load_identity,
    load_signing_key,
    new_identity,
    save_identity,
    save_recipient,
    seal,
)
from dpmlm.artifacts import passphrase as phrases
from dpmlm.pipeline.workspace import Workspace

TRAINER = ("--identity", "keys/trainer.key")
SIGNED = ("--signing-key", "keys/sign.key")


@pytest.fixture
def new(copy, call):
    """Keys of a second trainer, drawn beside the first ones; the current folder has a run."""
    assert call("keys", "new", "new", "--role", "trainer").status == 0
    return copy


def ids(call, *paths: str) -> list[str]:
    return [
        json.loads(call("keys", "show", path, "--json").out)["keys"][0]["key_id"] for path in paths
    ]


def sealed_folders() -> list[Path]:
    return sorted(path.parent for path in Path("work").rglob("recipients.json"))


def opens(path: Path, key: str) -> bool:
    try:
        SealedFolder.open(path, [load_identity(key)])
        return True
    except Exception:
        return False


def payloads() -> dict[Path, tuple[int, int]]:
    """Size and time of everything but recipients files and the bundle's signed manifest."""
    files = [path for path in Path("work").rglob("*") if path.is_file()]
    other = ("recipients.json", "manifest.dsse.json")
    found = {path: path.stat() for path in files if path.name not in other}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def test_roles_have_keys_of_their_own(tmp_path, monkeypatch, call, refused):
    monkeypatch.chdir(tmp_path)
    called = call("keys", "new", "k", "--role", "approver", "--role", "consumer", "--json")
    names = sorted(Path(path).name for path in json.loads(called.out)["written"])
    assert names == ["approver.key", "approver.pub", "consumer.key", "consumer.pub"]
    load_signing_key(tmp_path / "k/approver.key")
    classical = call("keys", "new", "c", "--role", "consumer", "--kem", "X25519")
    assert classical.status == 0
    assert load_identity(tmp_path / "c/consumer.key").kem == "X25519"
    assert "never overwritten" in refused("keys", "new", "k", "--role", "consumer")
    assert "nobody" in refused("keys", "new", "d", "--role", "nobody")


def test_passphrases_come_from_a_file_never_from_an_argument(tmp_path, monkeypatch, call, refused):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(phrases, "COST", {"m": 64, "t": 1, "p": 1})
    monkeypatch.setattr(phrases, "_opened", {})
    Path("phrase").write_text("four random words here\n")
    Path("phrase").chmod(0o600)
    new = ("keys", "new", "k", "--role", "consumer", "--passphrase")
    assert "DPMLM_PASSPHRASE_FILE" in refused(*new)
    monkeypatch.setenv("DPMLM_PASSPHRASE_FILE", "phrase")
    assert call(*new).status == 0
    load_identity("k/consumer.key")
    Path("phrase").write_text("another passphrase\n")
    phrases._opened.clear()
    rotate = ("keys", "rotate", "k", "--identity", "k/consumer.key")
    assert "does not open it" in refused(*rotate)


def test_listing_shows_everything_but_private_parts(copy, call, refused):
    called = call("keys", "list", "keys")
    assert called.status == 0
    assert len(called.out.splitlines()) == len(list(Path("keys").rglob("*.[kp][eu]*")))
    rows = json.loads(call("keys", "list", "keys", "--json").out)["keys"]
    assert {row["role"] for row in rows} == {"trainer", "auditor", "consumer", None}
    shown = call("keys", "show", "keys/trainer.key")
    private = json.loads(Path("keys/trainer.key").read_text())["key"]
    everything = called.out + json.dumps(rows) + shown.out
    assert private not in everything
    assert private[:40] not in everything
    assert ids(call, "keys/trainer.key") == ids(call, "keys/trainer.pub")
    assert "No such file" in refused("keys", "show", "none.key")
    assert "no such folder" in refused("keys", "list", "none")


def test_the_fields_are_those_of_the_documentation(copy, call):
    page = (Path(__file__).parents[2] / "docs/keys.md").read_text()
    tables = {
        schema: set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
        for schema, text in re.findall(r"`(dpmlm\.\w+/1)`:\n(\n.*?\n\n)", page, re.DOTALL)
    }
    listed = json.loads(call("keys", "list", "keys", "--json").out)
    assert (listed.pop("schema"), set(listed)) == ("dpmlm.keys/1", {"keys"})
    assert set(listed["keys"][0]) == tables["dpmlm.keys/1"]
    looked = json.loads(call("keys", "rotate", "work", *TRAINER, "--json").out)
    assert looked.pop("schema") == "dpmlm.rotation/1"
    assert set(looked) == tables["dpmlm.rotation/1"]
    assert looked["limits"] is None


def test_a_trainer_is_replaced_over_a_whole_workspace(new, call, refused):
    before, folders = payloads(), sealed_folders()
    assert len(folders) > 10
    replace = ("--replace", "keys/trainer.pub=new/trainer.pub", *SIGNED)
    command = ("keys", "rotate", "work", *TRAINER, *replace)
    assert "its signature covers" in refused(*command[:-2])
    checked = json.loads(call(*command, "--check", "--json").out)
    assert (checked["written"], checked["changed"]) == (False, len(folders))
    assert all(opens(folder, "keys/trainer.key") for folder in folders)
    called = call(*command)
    assert called.status == 0, called.err
    assert "rewrapping is no revocation" in called.out
    assert payloads() == before
    assert all(opens(folder, "new/trainer.key") for folder in folders)
    assert not any(opens(folder, "keys/trainer.key") for folder in folders)
    assert call("verify", "work/bundle", "--trusted-keys", "keys/trusted").status == 0
    # The run goes on with the new key alone, and without new budget.
    ledger = Path("ledger.jsonl").read_bytes()
    gate = call("gate", "run.yaml", "--set", "keys.identity=new/trainer.key")
    assert gate.status == 0, gate.err
    assert Path("ledger.jsonl").read_bytes() == ledger
    again = call("keys", "rotate", "work", "--identity", "new/trainer.key", *replace, "--json")
    assert json.loads(again.out)["changed"] == 0


@pytest.mark.full
def test_after_a_rotation_the_run_signs_its_release_again_and_spends_nothing(new, call):
    replace = ("--replace", "keys/trainer.pub=new/trainer.pub", *SIGNED)
    assert call("keys", "rotate", "work", *TRAINER, *replace).status == 0
    ledger, manifest = Path("ledger.jsonl"), Path("work/bundle/manifest.dsse.json")
    spent, signed = ledger.read_bytes(), manifest.read_bytes()
    called = call("run", "run.yaml", "--set", "keys.identity=new/trainer.key")
    assert called.status == 0, called.err
    assert ledger.read_bytes() == spent
    assert manifest.read_bytes() != signed
    verified = call("verify", "work/bundle", "--trusted-keys", "keys/trusted", "--json")
    assert not any("private" in note for note in json.loads(verified.out)["notes"])
    assert not any(opens(folder, "keys/trainer.key") for folder in sealed_folders())


@pytest.mark.parametrize(
    "last",
    rest_in_full(["manifest.dsse.json", "work/canaries/recipients.json"], ["manifest.dsse.json"]),
)
def test_killed_half_way_the_same_command_goes_on(new, call, refused, monkeypatch, last):
    """Also between the two files of the bundle."""
    replace = ("--replace", "keys/trainer.pub=new/trainer.pub", *SIGNED)
    command = ("keys", "rotate", "work", *TRAINER, "--identity", "new/trainer.key", *replace)
    folders, real, done = sealed_folders(), os.replace, []

    def dying(source, target):
        if done and done[-1].endswith(last):
            raise KeyboardInterrupt
        done.append(str(target))
        real(source, target)

    with monkeypatch.context() as dies:
        dies.setattr(os, "replace", dying)
        assert call(*command).status == 130
    rewrapped = [one for one in done if one.endswith("recipients.json")]
    assert sum(opens(folder, "new/trainer.key") for folder in folders) == len(rewrapped) > 0
    assert "only the keys" in refused("keys", "rotate", "work", *TRAINER, *replace)
    assert json.loads(call(*command, "--json").out)["changed"] == len(folders) - len(rewrapped)
    assert call("verify", "work/bundle", "--trusted-keys", "keys/trusted").status == 0
    assert all(opens(folder, "new/trainer.key") for folder in folders)
    assert not any(opens(folder, "keys/trainer.key") for folder in folders)


def test_bad_targets_and_keys_change_nothing(new, call, refused):
    before = {path: path.read_bytes() for path in Path("work").rglob("recipients.json")}
    save_recipient(Path("classical.pub"), new_identity("X25519").recipient)
    trainer, auditor = ids(call, "keys/trainer.key", "keys/auditor.key")
    bad = [
        (["none"], TRAINER, [], "no such file or folder"),
        (["keys"], TRAINER, [], "nothing sealed"),
        (["work", "keys"], TRAINER, [], "nothing sealed"),
        (["work"], ("--identity", "keys/auditor.key"), [], "only the keys"),
        (["work"], ("--identity", "keys/sign.key"), [], "signing-key/2"),
        (["work"], TRAINER, ["--remove", "0" * 16], "opens none of the targets"),
        (["work"], TRAINER, ["--remove", "xyz"], "xyz"),
        (["work"], TRAINER, ["--remove", trainer], "locks themselves out"),
        (["work"], TRAINER, ["--replace", auditor], "OLD=NEW"),
        (["work"], TRAINER, ["--replace", f"{'0' * 16}=new/trainer.pub"], "opens none"),
        (["work"], TRAINER, ["--add", "keys/consumer.pub"], "of a consumer"),
        (["work/corpus"], TRAINER, ["--add", "keys/consumer.pub"], "of a consumer"),
        (["work/bundle"], TRAINER, ["--add", "classical.pub"], "not mixed"),
        (["work/bundle"], TRAINER, ["--add", "keys/sign.pub"], "verify-key/1"),
        (["work/bundle"], TRAINER, ["--add", "keys/trainer.key"], "identity/2"),
    ]
    for targets, identity, change, told in bad:
        assert told in refused("keys", "rotate", *targets, *identity, *change), (targets, change)
    shutil_copy = Path("elsewhere")
    Path("work/bundle/model").rename(shutil_copy)
    told = refused("keys", "rotate", "elsewhere", *TRAINER, "--add", "keys/consumer.pub")
    assert "without its bundle" in told
    shutil_copy.rename("work/bundle/model")
    assert {path: path.read_bytes() for path in Path("work").rglob("recipients.json")} == before


def test_a_workspace_in_use_is_left_alone(new, call, refused):
    with Workspace(Path("work").resolve()).locked():
        for target in ("work", "work/bundle", "work/release/auditor", "."):
            told = refused("keys", "rotate", target, *TRAINER, "--add", "keys/auditor.pub")
            assert "another process is working in it" in told
        assert call("keys", "rotate", "work", *TRAINER, "--check").status == 0


def test_a_consumer_is_added_to_a_bundle_and_removed(new, call):
    save_identity(Path("other.key"), new_identity(role="consumer"))
    save_recipient(Path("other.pub"), load_identity("other.key").recipient)
    bundle = Path("work/bundle")
    added = call("keys", "rotate", bundle, *TRAINER, *SIGNED, "--add", "other.pub")
    assert added.status == 0
    assert "signed again" in added.out
    assert "no revocation" not in added.out
    assert opens(bundle / "model", "other.key")
    assert call("verify", bundle, "--trusted-keys", "keys/trusted").status == 0
    removed = call("keys", "rotate", bundle / "model", *TRAINER, *SIGNED, "--remove", "other.pub")
    assert "no revocation" in removed.out
    assert not opens(bundle / "model", "other.key")
    assert call("verify", bundle, "--trusted-keys", "keys/trusted").status == 0


def test_a_sealed_file_needs_its_context(tmp_path, monkeypatch, call, refused):
    monkeypatch.chdir(tmp_path)
    call("keys", "new", "keys")
    identity = load_identity("keys/trainer.key")
    seal(b"text", Path("notes.sealed"), [identity.recipient], context=b"notes/1")
    rotate = ("keys", "rotate", "notes.sealed", *TRAINER, "--add", "keys/auditor.pub")
    assert "--context" in refused(*rotate)
    assert "another context" in refused(*rotate, "--context", "notes/2")
    done = json.loads(call(*rotate, "--context", "notes/1", "--json").out)
    assert [one["kind"] for one in done["targets"]] == ["file"]
    assert len(done["targets"][0]["after"]) == 2

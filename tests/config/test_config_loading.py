import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from variants import rest_in_full

from dpmlm.config import RunConfig, claim_fields, load_config, names_run_file, parse_overrides
from dpmlm.errors import UserError

RUN = {
    "name": "clinic",
    "workspace": "work",
    "keys": {"identity": "keys/t.key", "signing": "keys/s.key", "scrub": "keys/p.key"},
    "ledger": {"path": "ledger.jsonl", "cap": {"epsilon": 16, "delta": "1e-5"}},
    "corpus": {"path": "notes.jsonl", "person": "author"},
    "tokens": {"vocabulary": "vocab.txt"},
    "model": {"size": "tiny"},
    "privacy": {"unit": "person", "epsilon": 8, "delta": 1e-6, "units": 6500},
    "training": {"steps": 150, "expected_batch_size": 256},
    "release": {"recipients": ["keys/c.pub"]},
}


def write(folder: Path, **changes) -> Path:
    tree = yaml.safe_load(yaml.safe_dump(RUN))
    for dotted, value in changes.items():
        *sections, leaf = dotted.split("__")
        below = tree
        for section in sections:
            below = below.setdefault(section, {})
        below[leaf] = value
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_numbers_of_every_yaml_spelling(tmp_path):
    config = load_config(write(tmp_path, privacy__epsilon="inf", privacy__max_grad_norm=math.inf))
    assert math.isinf(config.privacy.epsilon)
    assert config.ledger.cap.delta == 1e-5


def test_paths_in_the_file_are_relative_to_it_and_overrides_to_the_current_folder(
    tmp_path, monkeypatch
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = write(tmp_path)
    assert load_config(path).corpus.path == tmp_path / "notes.jsonl"
    assert load_config(path, {"corpus.path": "x.jsonl"}).corpus.path == here / "x.jsonl"
    assert load_config(path).release.recipients == [tmp_path / "keys/c.pub"]


def test_a_vocabulary_is_a_path_only_where_one_is(tmp_path):
    assert load_config(write(tmp_path)).tokens.vocabulary == "vocab.txt"
    (tmp_path / "vocab.txt").touch()
    assert load_config(write(tmp_path)).tokens.vocabulary == str(tmp_path / "vocab.txt")


@pytest.mark.parametrize(
    ("change", "near"),
    [
        ({"privacy__epsilonn": 8}, "did you mean privacy.epsilon?"),
        ({"trainig": {}}, "did you mean training?"),
        ({"training__stepz": 3}, "did you mean training.steps?"),
        ({"zzzz": 1}, "known there: audit, corpus,"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path, change, near):
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, **change))
    assert "no such key" in caught.value.rule
    assert near in caught.value.next_step


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"privacy__epsilon": -1}, "greater than 0"),
        ({"privacy__delta": 2}, "less than 1"),
        ({"privacy__epsilon": "lots"}, "valid number"),
        ({"corpus__person": None}, "needs corpus.person"),
        ({"training__expected_batch_size": 7000}, "sampling rate would exceed 1"),
        ({"privacy__max_grad_norm": "inf"}, "finite"),
        ({"tokens__vocabulary": None}, "exactly one of tokens.vocabulary"),
        ({"tokens__private": {"epsilon": 1, "delta": 1e-9}}, "exactly one of tokens.vocabulary"),
        (
            {"tokens__vocabulary": None, "tokens__private": {"epsilon": 1, "delta": 0.01}},
            "tokens.private.delta is not below 1/privacy.units",
        ),
        (
            {
                "tokens__vocabulary": None,
                "privacy__unit": "sequence",
                "tokens__private": {"epsilon": 1, "delta": 1e-6},
            },
            "tokens.private chooses words by document or person",
        ),
        ({"privacy__bands": 26}, "privacy.bands times training.expected_batch_size"),
        ({"privacy__bands": 2, "audit": {"copies": 4}}, "no known trade-off curve"),
        ({"privacy__bands": 0}, "greater than or equal to 1"),
        ({"model__from": "x"}, "exactly one of model.size"),
        ({"model__train": "lora"}, "it goes with model.from"),
        ({"model__train": "head"}, "model.train"),
        ({"model__lora_rank": 0}, "model.lora_rank"),
        ({"release__recipients": []}, "at least 1"),
        ({"name": "../up"}, "match pattern"),
        ({"masking": {"mask_fraction": 0.9, "random_fraction": 0.2}}, "more than 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_rule(tmp_path, change, rule):
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, **change))
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("beside", "place", "next_step"),
    [
        ({"privacy.epsilon": -1}, "privacy.epsilon = -1, set beside FILE", "set another value"),
        ({"masking": {"ratio": 0}}, "masking.ratio = 0, set beside FILE", "set another value"),
        ({"privacy": {"epsilon": 1}}, "privacy.delta, set beside FILE", "set that field too"),
        (
            {"privacy.epsilom": 3},
            "privacy.epsilom, set beside FILE",
            "did you mean privacy.epsilon?",
        ),
        (
            {"model.from": "x", "name": "y"},
            "FILE with model.from as set beside it: model",
            "change that field and run again",
        ),
        (
            {"corpus.person": None},
            "FILE with what is set beside it: run file",
            "change that field and run again",
        ),
    ],
)
def test_a_value_is_blamed_on_where_it_was_given(tmp_path, beside, place, next_step):
    path = write(tmp_path)
    with pytest.raises(UserError) as caught:
        load_config(path, beside)
    assert (caught.value.given, caught.value.next_step) == (
        place.replace("FILE", str(path)),
        next_step,
    )


def test_a_value_of_the_file_is_blamed_on_it_whatever_else_was_set(tmp_path):
    path = write(tmp_path, privacy__epsilon=-1)
    with pytest.raises(UserError) as caught:
        load_config(path, {"privacy.delta": 1e-6})
    assert caught.value.given == f"{path}: privacy.epsilon = -1"


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("run.yaml", True),
        ("a/run.YML", True),
        ("bundle", False),
        ("yaml", False),
        ("x.json", False),
    ],
)
def test_a_run_file_is_known_by_its_ending(name, is_one):
    assert names_run_file(Path(name)) is is_one


@pytest.mark.parametrize("content", ["a: [", "- a list", "\xff"])
def test_a_file_that_is_no_run_file(tmp_path, content):
    path = tmp_path / "run.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError):
        load_config(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="dpmlm init"):
        load_config(tmp_path / "none.yaml")


def test_overrides_are_yaml(tmp_path):
    given = parse_overrides(["privacy.epsilon=4", "dedup.near=null", "name=x"])
    assert given == {"privacy.epsilon": 4, "dedup.near": None, "name": "x"}
    config = load_config(write(tmp_path), given)
    assert config.privacy.epsilon == 4
    assert config.dedup.near is None


@pytest.mark.parametrize("setting", ["privacy.epsilon", "=4", "a=["])
def test_a_malformed_override_is_refused(setting):
    with pytest.raises(UserError, match="--set"):
        parse_overrides([setting])


def test_speed_alone_does_not_enter_the_claim(tmp_path):
    before = claim_fields(load_config(write(tmp_path)))
    faster = {"training__physical_batch_size": 8, "training__checkpoint_minutes": 1}
    faster["training__activation_checkpointing"] = True
    assert claim_fields(load_config(write(tmp_path, **faster))) == before
    other = claim_fields(load_config(write(tmp_path, training__learning_rate=1)))
    assert other != before


def test_every_field_is_documented():
    def fields(model: type[BaseModel]):
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                assert kind.__doc__, kind
                yield from fields(kind)
            else:
                yield f"{model.__name__}.{name}", field.description

    bare = [name for name, text in fields(RunConfig) if not text]
    assert not bare


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("seed: 1\nseed: 2", "key 'seed' is given twice"),
        ("keys: {identity: a, identity: b}", "given twice"),
        ("seed: &a 1", "anchors"),
        ("seed: *a", "anchors and aliases"),
        ("keys: {<<: {identity: a}}", "merge keys"),
        ('name: "a\\0b"', "NUL"),
        ('name: "\\ud800"', "half a character"),
        ("name: 2001-99-99", "cannot be read"),
        ("name: !!python/name:os.system x", "tags are not used"),
        ("[" * 5000, "nested too deep"),
        ("#" + "x" * (1 << 20), "longer than"),
    ],
)
def test_yaml_that_hides_or_expands_is_refused(tmp_path, line, rule):
    path = tmp_path / "run.yaml"
    path.write_text("# first\n" + line + "\n")
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert rule in caught.value.rule
    if "twice" in rule or rule in ("anchors", "merge keys"):
        assert " line " in caught.value.given


def test_huge_numbers_are_refused_with_their_limit(tmp_path):
    for change in (
        {"training__steps": 10**30},
        {"privacy__units": 10**30},
        {"seed": 2**64},
        {"seed": -1},
        {"training__learning_rate": math.inf},
        {"training__learning_rate": math.nan},
        {"audit": {"canaries": 10**30}},
    ):
        with pytest.raises(UserError):
            load_config(write(tmp_path, **change))


def number_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Dotted name of every field that holds a number, and whether inf is one of its values."""
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is list:  # its items have numbers of their own, by place
            continue
        kinds = {field.annotation, *get_args(field.annotation)}
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from number_fields(kind, f"{prefix}{name}__")
        if kinds & {int, float}:
            yield prefix + name, "inf" in (field.description or "").split()


NUMBERS = dict(number_fields(RunConfig))


def whole(field: str = "") -> dict:
    """Changes that make every optional section present that may stand beside `field`."""
    private = field.startswith("tokens__private")
    source = {"epsilon": 1, "delta": 1e-9} if private else {"corpus": "p.jsonl"}
    return {
        "audit__control": {"corpus": "p.jsonl"},
        "masking__weights": {"corpus": "p.jsonl"},
        "model": {"from": "base", "forgetting": {"corpus": "p.jsonl"}},
        "tokens__private" if private else "tokens__train": source,
        "tokens__vocabulary": None,
        "training__best": {"corpus": "p.jsonl"},
        "training__scale": {"corpus": "p.jsonl"},
    }


def refusal(folder: Path, **changes) -> str:
    with pytest.raises(UserError) as caught:
        load_config(write(folder, **whole(next(iter(changes))), **changes))
    return str(caught.value)


@pytest.mark.parametrize("field", rest_in_full(NUMBERS, list(NUMBERS)[::4]))
def test_a_number_is_a_number(tmp_path, field):
    dotted = field.replace("__", ".")
    for value in (True, False, "1", "0.5", "yes", "", "1e", "١e1", math.nan, -math.inf):
        message = refusal(tmp_path, **{field: value})
        assert f"{dotted} = {value!r}" in message
        if isinstance(value, bool):
            assert "a number, not true or false" in message
        if isinstance(value, str):
            assert "without quotes" in message


@pytest.mark.parametrize("field", NUMBERS)
def test_infinity_is_a_value_only_where_the_field_says_so(tmp_path, field):
    for value in (math.inf, "inf"):
        changes = {**whole(), "privacy__epsilon": "inf", field: value}
        if NUMBERS[field]:
            load_config(write(tmp_path, **changes))
        else:
            assert field.replace("__", ".") in refusal(tmp_path, **{field: value})


def test_infinity_is_documented_for_the_caps_alone():
    known = {"ledger__cap__epsilon", "privacy__epsilon", "privacy__max_grad_norm"}
    assert {field for field, infinite in NUMBERS.items() if infinite} == known


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "1.e-3", ".1e-2"])
def test_an_exponent_without_a_point_is_text_to_yaml_and_a_number_here(tmp_path, text):
    assert load_config(write(tmp_path, training__learning_rate=text)).training.learning_rate == 1e-3
    given = parse_overrides([f"training.learning_rate={text}", "training.steps=2e2"])
    assert load_config(write(tmp_path), given).training.steps == 200


def test_a_schedule_is_the_same_after_json(tmp_path: Path) -> None:
    fields = claim_fields(load_config(write(tmp_path, training__batch_schedule={9: 20, 10: 30})))
    assert fields["training"]["batch_schedule"] == {"9": 20, "10": 30}
    assert json.loads(json.dumps(fields)) == fields


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ([{"family": "iban", "count": 5}], "audit.groups.0.family"),
        ([{"family": "phone"}], "audit.groups.0.count"),
        ([{"family": "phone", "count": 0}], "audit.groups.0.count = 0"),
        ([{"family": "phone", "count": 5, "copies": 0}], "audit.groups.0.copies = 0"),
        ([{"family": "phone", "count": True}], "a number, not true or false"),
        ([{"family": "phone", "count": 5, "arm": "both"}], "audit.groups.0.arm"),
        ([{"family": "phone", "count": 5, "cuont": 6}], "audit.groups.0.cuont"),
        ([{"family": "rare_tokens", "count": 5, "arm": "pipeline"}], "before there is a tokenizer"),
        ([{"family": "rare_suffix", "count": 5}], "name it in audit.control"),
        (
            [{"family": "phone", "count": 5}, {"family": "phone", "count": 6}],
            "two groups",
        ),
        ({"family": "phone", "count": 5}, "audit.groups"),
    ],
)
def test_canary_groups_that_cannot_be_are_refused(tmp_path: Path, groups, named) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, audit={"groups": groups}))
    assert named in str(caught.value)


def test_canary_groups_are_counted_as_units(tmp_path: Path) -> None:
    groups = [
        {"family": "phone", "count": 5, "copies": 4, "arm": "pipeline"},
        {"family": "phone", "count": 3, "copies": 16},
    ]
    audit = load_config(
        write(tmp_path, audit={"canaries": 10, "copies": 2, "groups": groups})
    ).audit
    assert audit.most_units == 10 * 2 + 5 * 4 + 3 * 16
    assert [group.arm for group in audit.groups] == ["pipeline", "exempt"]

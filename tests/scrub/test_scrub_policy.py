from pathlib import Path

import pytest
from variants import rest_in_full

from dpmlm.errors import UserError
from dpmlm.scrub import Scrubber, load_policy, shipped_policies
from dpmlm.scrub import policy as policy_module
from dpmlm.scrub.engine import Analyzer

SMALL = """
name: small
description: one rule
other: {operator: keep, why: nothing else}
rules:
  - {entity: PERSON, operator: pseudonym, threshold: 0.5, why: names}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_policies_load_and_say_why() -> None:
    assert shipped_policies() == [
        "default", "gdpr-pseudonymise", "hipaa-safe-harbor", "strict", "surrogates"
    ]  # fmt: skip
    for name in shipped_policies():
        policy = load_policy(name)
        assert policy.name == name
        assert all(rule.why for rule in policy.rules)


def test_file_by_path_and_rule_lookup(tmp_path: Path) -> None:
    policy = load_policy(_write(tmp_path, SMALL))
    assert policy.rule_for("PERSON").operator == "pseudonym"
    assert policy.rule_for("URL").operator == "keep"
    assert policy.needs_key
    assert not load_policy("default").needs_key


def test_digest_follows_the_content(tmp_path: Path) -> None:
    first = load_policy(_write(tmp_path, SMALL)).digest
    assert load_policy(_write(tmp_path, SMALL)).digest == first
    assert load_policy(_write(tmp_path, SMALL.replace("0.5", "0.6"))).digest != first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("rules:", "rulez:"),
            "nearest known field is rules",
        ),
        (("threshold: 0.5", "treshold: 0.5"), "nearest known field is threshold"),
        (("threshold: 0.5", "threshold: 1.5"), "threshold"),
        (("operator: pseudonym", "operator: hash"), "operator"),
        (("entity: PERSON", "entity: person"), "entity"),
        ((", why: names", ""), "why"),
        (("rules:\n", "rules:\n  - {entity: PERSON, operator: keep, why: x}\n"), "PERSON"),
        (("description: one rule", "description: [one"), "line"),
        (
            ("entity: PERSON, operator: pseudonym", "entity: NRP, operator: surrogate"),
            "no surrogate",
        ),
        (
            ("entity: PERSON, operator: pseudonym", "entity: PERSON, operator: generalise"),
            "nothing more general",
        ),
    ],
)
def test_wrong_policies_are_refused(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = _write(tmp_path, SMALL.replace(*change))
    with pytest.raises(UserError) as error:
        load_policy(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["hipaa", "no/such.yaml", "../default"])
def test_unknown_policy_names_those_that_there_are(name: str) -> None:
    with pytest.raises(UserError, match="hipaa-safe-harbor"):
        load_policy(name)


def test_pseudonyms_need_a_key() -> None:
    policy = load_policy("gdpr-pseudonymise")
    with pytest.raises(UserError, match="no key"):
        Scrubber(policy)
    with pytest.raises(UserError, match="4 bytes"):
        Scrubber(policy, pseudonym_key=b"tiny")
    Scrubber(policy, pseudonym_key=bytes(32))


def test_hipaa_rows_are_complete_and_their_entities_exist(analyzer: Analyzer) -> None:
    rows = load_policy("hipaa-safe-harbor").identifiers
    assert [row.number for row in rows] == list(range(1, 19))
    named = {entity for row in rows for entity in row.found_by}
    assert named <= set(analyzer.entities)
    assert all(row.out_of_reach for row in rows)
    assert not load_policy("hipaa-safe-harbor").needs_key


def test_rules_of_shipped_policies_name_entities_that_exist(analyzer: Analyzer) -> None:
    known = set(analyzer.entities) | {"QUANTITY", "MISC"}
    for name in shipped_policies():
        assert {rule.entity for rule in load_policy(name).rules} <= known


def test_missing_spacy_pipeline_is_refused(tmp_path: Path) -> None:
    text = SMALL + "engine: {spacy: en_core_no_such}\n"
    policy = load_policy(_write(tmp_path, text))
    with pytest.raises(UserError, match="en_core_no_such"):
        Scrubber(policy, pseudonym_key=bytes(32))


def test_another_spacy_pipeline_is_one_line(tmp_path: Path) -> None:
    import spacy

    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler", name="ner")
    ruler.add_patterns([{"label": "PER", "pattern": "Zaphod"}])  # type: ignore[attr-defined]
    nlp.to_disk(tmp_path / "other")
    text = SMALL + f"engine: {{spacy: {tmp_path / 'other'}}}\n"
    scrubber = Scrubber(load_policy(_write(tmp_path, text)), pseudonym_key=bytes(32))
    assert scrubber.scrub("we met Zaphod there").text.startswith("we met PERSON_")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token classifier that takes the word "zaphod" for a person, and no other word."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("classifier") / "zaphod"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "we", "met", "zaphod", "there"]
    (folder.parent / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder.parent / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, id2label={0: "O", 1: "B-HERO"}, label2id={"O": 0, "B-HERO": 1},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        embeddings = model.bert.embeddings
        # A layer norm keeps the direction of what comes in: up for the word, down for all others.
        embeddings.word_embeddings.weight[:] = torch.tensor([-1.0, 1.0] * 4)
        embeddings.word_embeddings.weight[words.index("zaphod")] *= -1
        for name, module in model.named_modules():
            if name.endswith("LayerNorm"):
                module.weight.fill_(1.0)
        model.classifier.weight[1] = torch.tensor([1.0, -1.0] * 4)
    model.save_pretrained(folder)
    return folder


def test_a_token_classifier_is_one_line_and_its_weights_are_in_the_digest(
    tmp_path: Path, classifier: Path
) -> None:
    text = SMALL + f"engine: {{token_classifier: {classifier}, labels: {{HERO: PERSON}}}}\n"
    policy = load_policy(_write(tmp_path, text))
    scrubber = Scrubber(policy, pseudonym_key=bytes(32))
    assert scrubber.scrub("we met zaphod there").text.startswith("we met PERSON_")
    assert scrubber.scrub("we met there").text == "we met there"
    (found,) = scrubber.scrub("we met zaphod there").decisions
    assert found.recognizer == "TokenClassifier"
    before = policy.digest
    with (classifier / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert load_policy(_write(tmp_path, text)).digest != before


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nothing", "no such name!", "no/such-model"])
def test_a_token_classifier_that_is_not_there_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text = SMALL + f"engine: {{token_classifier: {name!r}}}\n"
    with pytest.raises(UserError, match="no token classifier can be loaded"):
        Scrubber(load_policy(_write(tmp_path, text)), pseudonym_key=bytes(32))


def test_an_empty_folder_is_no_token_classifier(tmp_path: Path) -> None:
    text = SMALL + f"engine: {{token_classifier: {tmp_path}}}\n"
    with pytest.raises(UserError, match="no configuration"):
        Scrubber(load_policy(_write(tmp_path, text)), pseudonym_key=bytes(32))


def test_a_folder_that_does_not_load_is_refused_on_first_use(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    text = SMALL + f"engine: {{token_classifier: {tmp_path}}}\n"
    with pytest.raises(UserError, match="no token classifier can be loaded"):
        Scrubber(load_policy(_write(tmp_path, text)), pseudonym_key=bytes(32)).scrub("we")


def test_the_fast_mode_takes_the_first_name_finder_alone() -> None:
    best = load_policy("default")
    fast = best.model_copy(update={"engine": best.engine.model_copy(update={"mode": "fast"})})
    assert best.engine.mode == "best"
    assert (len(best.engine.parts), len(fast.engine.parts)) == (2, 1)
    assert fast.digest != best.digest
    text = "Mr Robert Hughes of Springfield met Jane Kowalski, jk@example.org"
    found = [{d.entity for d in Scrubber(policy).scrub(text).decisions} for policy in (best, fast)]
    assert all({"PERSON", "EMAIL_ADDRESS"} <= entities for entities in found)
    assert len(Analyzer(fast)._finder._pipelines) == 1


@pytest.mark.parametrize(
    ("entity", "advice"), [("PERSN", "did you mean PERSON"), ("QXZ", "drop the rule")]
)
def test_a_rule_for_what_nothing_finds_is_refused(tmp_path: Path, entity: str, advice: str) -> None:
    """With `other: keep` a slip of the pen would leave every name in clear."""
    policy = load_policy(_write(tmp_path, SMALL.replace("PERSON", entity)))
    with pytest.raises(UserError, match=f"{entity}: no recognizer finds .*{advice}"):
        Scrubber(policy, pseudonym_key=bytes(32)).scrub("Mr John Smith")


@pytest.mark.parametrize(
    "name", rest_in_full(shipped_policies(), ["default", "gdpr-pseudonymise", "strict"])
)
def test_every_rule_of_the_shipped_policies_is_for_something_that_is_found(name: str) -> None:
    assert Analyzer(load_policy(name)).entities


def test_a_rule_may_be_for_a_country_that_is_left_out(tmp_path: Path) -> None:
    text = SMALL.replace("PERSON", "US_SSN") + "engine: {countries: [uk]}\n"
    assert Analyzer(load_policy(_write(tmp_path, text)))


def test_models_of_one_name_in_two_folders_have_two_places_in_the_digest(tmp_path: Path) -> None:
    digests = set()
    for spacy, classifier in ((b"1", b"2"), (b"2", b"1"), (b"1", b"1")):
        for folder, weight in (("a", spacy), ("b", classifier)):
            (tmp_path / folder / "model").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "model/weights").write_bytes(weight)
        engine = f"engine: {{spacy: {tmp_path}/a/model, token_classifier: {tmp_path}/b/model}}\n"
        digests.add(load_policy(_write(tmp_path, SMALL + engine)).digest)
    assert len(digests) == 3


def test_a_package_enters_the_digest_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, SMALL + "engine: {spacy: en_core_web_sm}\n")
    digests = set()
    for version in ("3.8.0", "3.8.1"):
        monkeypatch.setattr(policy_module, "version", lambda name, version=version: version)
        digests.add(load_policy(path).digest)
    assert len(digests) == 2

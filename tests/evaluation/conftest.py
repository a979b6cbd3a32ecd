"""A WordPiece tokenizer of a few words, a small model for it, and documents of their tokens."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from dpmlm.evaluation import EvaluationSpec
from dpmlm.masking import Example, TokenTable

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WHOLE = ["the", "a", "river", "stone", "market", "winter", "garden", "was", "."]
PARTS = ["gl", "##ac", "##ier", "##s", "##al", "thaw", "##ing"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(SPECIAL + WHOLE + PARTS)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    roles = ("pad", "unk", "cls", "sep", "mask")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{f"{role}_token": token for role, token in zip(roles, SPECIAL, strict=True)},
    )


@pytest.fixture(scope="session")
def table(tokenizer) -> TokenTable:
    return TokenTable.of(tokenizer)


@pytest.fixture(scope="session")
def model(tokenizer) -> BertForMaskedLM:
    torch.manual_seed(7)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 16}
    made = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes))
    with torch.no_grad():
        for param in made.parameters():
            param.add_(0.5 * torch.randn_like(param))
    return made.eval()


@pytest.fixture(scope="session")
def examples(tokenizer) -> list[Example]:
    """Empty, one token, several windows, an unknown word now and then."""
    rng = np.random.default_rng(11)
    texts = ["", "river", "zebra", "zebra zebra"]
    words = [*WHOLE, "glaciers", "glacial", "thawing", "zebra"]
    texts += [" ".join(rng.choice(words, rng.integers(1, 60))) for _ in range(20)]
    made = []
    for i, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        made.append(Example(f"doc-{i}", np.array(ids, dtype=np.int64)))
    return made


@pytest.fixture(scope="session")
def spec() -> EvaluationSpec:
    return EvaluationSpec(window=12, rows_per_document=3)

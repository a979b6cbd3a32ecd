"""Somebody else's trainer: plain PyTorch and transformers, no privacy, nothing of this project.

python train.py base                      invents a corpus and an untrained model with a vocabulary
python train.py fit train.jsonl model     trains that model on a corpus
"""

import argparse
import json
import random
from pathlib import Path

import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
)

SYLLABLES = "ba ce di fo gu ha ke li mo nu pa re si to vu wa ze lo mi ra".split()
DOCUMENTS, EPOCHS, MASKED, LENGTH = 300, 40, 0.3, 32


def base() -> None:
    """Notes in an invented language, a vocabulary of its words, and a small BERT."""
    rng = random.Random(0)
    words = sorted({"".join(rng.choices(SYLLABLES, k=rng.choice((2, 3)))) for _ in range(900)})
    weights = [1 / (place + 5) for place in range(len(words))]
    with open("corpus.jsonl", "w") as file:
        for number in range(DOCUMENTS):
            text = " ".join(rng.choices(words, weights, k=14))
            file.write(json.dumps({"id": f"note-{number}", "text": text}) + "\n")
    Path("vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words]) + "\n"
    )
    tokenizer = BertTokenizerFast("vocab.txt")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=512, max_position_embeddings=64,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained("base")
    tokenizer.save_pretrained("base")


def fit(corpus: str, out: str) -> None:
    """Ordinary masked language modelling with AdamW."""
    tokenizer = AutoTokenizer.from_pretrained("base")
    model = AutoModelForMaskedLM.from_pretrained("base")
    texts = [json.loads(line)["text"] for line in Path(corpus).read_text().splitlines()]
    rows = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH,
                     return_tensors="pt")  # fmt: skip
    ids, attention = rows["input_ids"], rows["attention_mask"]
    ordinary = ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(1)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(ids)).split(32):
            hidden = ordinary[batch] & (torch.rand(ids[batch].shape) < MASKED)
            seen = ids[batch].masked_fill(hidden, tokenizer.mask_token_id)
            labels = ids[batch].masked_fill(~hidden, -100)
            model(input_ids=seen, attention_mask=attention[batch], labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    verbs.add_parser("base").set_defaults(do=lambda _: base())
    fitted = verbs.add_parser("fit")
    fitted.add_argument("corpus")
    fitted.add_argument("out")
    fitted.set_defaults(do=lambda options: fit(options.corpus, options.out))
    chosen = parser.parse_args()
    chosen.do(chosen)

"""Synthetic batches on which a model is measured: every awkward shape, nothing private."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dpmlm.masking import MaskedBatch

UNITS = 5
"""Units in the six rows of a probe."""
ROWS, SHARE = 6, 0.15
"""Rows, and masked part of a row: as many slots as training has, so that it sums the same way."""


def probe_batch(model: Any, vocab_size: int, width: int) -> MaskedBatch:
    """Six rows in five units: padding, attended padding, one token, no mask, a unit of two rows.

    Unit 0 is row 4. Ids are below `vocab_size`, rows at most `width` tokens.
    """
    generator = torch.Generator().manual_seed(0)
    pad = padding_id(model)
    ids = torch.randint(0, vocab_size, (ROWS, width), generator=generator)
    ids = ids.masked_fill(ids == pad, (pad + 1) % vocab_size)
    ids[4, 1 : width // 2] = pad  # attended padding: padding_idx must hold there too
    lengths = torch.tensor([width, max(1, width // 2), 1, width, width, max(1, width - 2)])
    mask = torch.arange(width) < lengths[:, None]
    slots = max(3, round(SHARE * width))
    positions = (torch.rand(ROWS, slots, generator=generator) * lengths[:, None]).long()
    used = torch.tensor([slots, max(2, slots // 2), 1, 0, slots, slots])
    weights = (torch.arange(slots) < used[:, None]).float()
    batch = MaskedBatch(
        input_ids=ids.masked_fill(~mask, pad),
        attention_mask=mask,
        masked_positions=positions,
        masked_labels=torch.randint(0, vocab_size, (ROWS, slots), generator=generator),
        masked_weights=weights,
        unit_index=torch.tensor([4, 1, 2, 3, 0, 4]),
    )
    return batch.to(next(model.parameters()).device)


def with_another_unit(batch: MaskedBatch, vocab_size: int) -> MaskedBatch:
    """The probe with other text in unit 0 and nothing else changed."""
    ids = batch.input_ids.clone()
    ids[4] = (ids[4] + 1) % vocab_size
    return replace(batch, input_ids=ids)


def with_more_padding(model: Any, batch: MaskedBatch, count: int) -> MaskedBatch:
    """The same rows, each padded by `count` more tokens."""
    pad = nn.functional.pad
    return replace(
        batch,
        input_ids=pad(batch.input_ids, (0, count), value=padding_id(model)),
        attention_mask=pad(batch.attention_mask, (0, count), value=0),
    )


def padding_id(model: Any) -> int:
    """The model's padding token; 0 where its configuration names none."""
    return int(getattr(model.config.get_text_config(), "pad_token_id", None) or 0)


def embedding_lines(model: Any) -> int:
    """Token ids that the model can take."""
    table = model.get_input_embeddings()
    return int(getattr(table, "num_embeddings", 0) or model.config.get_text_config().vocab_size)

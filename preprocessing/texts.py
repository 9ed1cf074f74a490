"""Convert raw texts to the padded token batches that a network was trained on."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from preprocessing.special_tokens import PAD, UNK, special_token_id


def texts_to_inputs(
    texts: Sequence[str | tuple[str, str]], tokenizer: Tokenizer
) -> dict[str, Tensor]:
    """Tokenize texts or pairs of texts, truncate and pad them, as the DataModule did.

    Args:
        texts: Raw texts or pairs, one or more.
        tokenizer: With truncation and padding enabled, as in a text DataModule's `tokenizer_json`.

    Returns:
        `input_ids` and `attention_mask`, both (B, T); the mask is True at tokens. Pairs also have
        `token_type_ids` (B, T): 0 in the first text, 1 in the second.
    """
    found = tokenizer.encode_batch(list(texts))
    # A text without tokens becomes one [UNK]: an attention mask must not be empty.
    width = max([1, *(len(encoding.ids) for encoding in found)])
    pad, unknown = (int(special_token_id(tokenizer, name) or 0) for name in (PAD, UNK))
    ids = torch.full((len(found), width), pad)  # (B, T)
    types = torch.zeros_like(ids)  # (B, T)
    mask = torch.zeros_like(ids, dtype=torch.bool)  # (B, T)
    for row, encoding in enumerate(found):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids, dtype=torch.int64)
        types[row, : len(encoding.ids)] = torch.tensor(encoding.type_ids, dtype=torch.int64)
        mask[row, : len(encoding.ids)] = torch.tensor(encoding.attention_mask, dtype=torch.bool)
    empty = ~mask.any(dim=1)  # (B,)
    ids[empty, 0] = unknown
    mask[empty, 0] = True
    inputs = {"input_ids": ids, "attention_mask": mask}
    if any(not isinstance(text, str) for text in texts):
        inputs["token_type_ids"] = types
    return inputs

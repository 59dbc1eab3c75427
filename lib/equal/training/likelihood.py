"""The negative log-likelihood of chosen tokens: what training lowers and evaluation measures."""

from __future__ import annotations

from typing import Any

import torch


def token_nll(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, counted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p(token | what stands before it) of the counted tokens.

    Only columns with a counted token pass through the output layer, which is wide; and only counted tokens
    are taken to float32, in which the log-softmax is computed.

    Args:
        model: a causal language model.
        input_ids: (n, width), padded on the right.
        attention_mask: (n, width), 1 for a token and 0 for padding.
        counted: (n, width) bool. The first token of a row has nothing before it and never counts.

    Returns:
        (m,) float32 values, row by row, and (m,) the row of each.
    """
    target = counted[:, 1:]
    # as indices, not as a number: that slices, and the product of a slice copies the output layer for every row
    columns = torch.nonzero(target.any(dim=0))[:, 0]
    out = model(input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=columns, use_cache=False)
    chosen = target[:, columns]
    logits = out.logits[chosen].float()
    nll = torch.nn.functional.cross_entropy(logits, input_ids[:, 1:][:, columns][chosen], reduction="none")
    return nll, torch.nonzero(chosen)[:, 0]

"""What work costs in floating point operations and in money (method section 8; the paper's App. F and H).

Counts follow the usual rules of thumb for transformers of P weights: 2 P a token forward, 4 P backward.
They are estimates of arithmetic, not measurements, and leave out attention's quadratic part.
"""

from __future__ import annotations


def inference_flops(num_parameters: int, tokens: int, cached_tokens: int = 0) -> float:
    """2 P a token: extraction (prompt and completion tokens alike), embedding, scoring.

    Args:
        num_parameters: P, weights used for a token.
        tokens: read or written.
        cached_tokens: of them, that a prefix cache held and so took nothing.
    """
    return 2.0 * num_parameters * (tokens - cached_tokens)


def training_flops(num_parameters: int, tokens: int) -> float:
    """6 P a token and epoch: forward 2 P, gradients of activations 2 P, gradients of weights 2 P."""
    return 6.0 * num_parameters * tokens


def lora_training_flops(num_parameters: int, adapter_parameters: int, tokens: int) -> float:
    """4 P for the frozen base (forward, gradients of activations) and 6 A for an adapter of A weights, a token."""
    return 4.0 * num_parameters * tokens + training_flops(adapter_parameters, tokens)


def kmeans_flops(num_docs: int, k: int, dim: int, passes: int) -> float:
    """2 n k d a pass over the documents."""
    return 2.0 * num_docs * k * dim * passes


def transport_flops(num_x: int, num_y: int, dim: int, solver_passes: int) -> float:
    """n m d for the cost matrix and n m for each pass of the solver over it."""
    return float(num_x) * num_y * (dim + solver_passes)


def money(prompt_tokens: int, completion_tokens: int, prompt_price: float, completion_price: float) -> float:
    """The price of tokens, in the currency of the prices, which are per million tokens.

    >>> money(2_000_000, 500_000, prompt_price=0.4, completion_price=1.2)
    1.4
    """
    return (prompt_tokens * prompt_price + completion_tokens * completion_price) / 1e6

"""Tunes the encoder so that a document lies close to its own pairs: InfoNCE (the paper's Eq. 3) with a temperature."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from equal.training.encoder import Encoder, best_dtype, load_encoder

log = logging.getLogger("equal")

#: hard negatives are drawn from these ranks: rank 1 may well be a right answer to the document
_HARD_RANKS = (2, 200)
_WEIGHT_DECAY = 0.01
_WARM_UP_SHARE = 0.1

#: (doc_id, document text, pair text)
TrainingPair = tuple[str, str, str]


@dataclass(frozen=True)
class Alignment:
    """How close documents are to their own pairs, before and after tuning.

    Attributes:
        mrr_before: mean reciprocal rank of the held-out documents' own pairs among all pairs of other
            documents, with the encoder as it was; null when nothing was held out.
        mrr_after: the same with the encoder that was saved.
        loss_before: Eq. 3 over the held-out documents' pairs, all other pairs the negatives; it still tells encoders
            apart where every rank is 1, as with quoted answers. Null when nothing was held out.
        loss_after: the same with the encoder that was saved.
        num_pairs: pairs trained on; num_held_out: documents held out.
        losses: mean loss of each step.
        num_tokens: tokens trained on, padding included; num_parameters: weights, for the cost ledger.
        note: why nothing was tuned; empty when it was.
    """

    mrr_before: float | None
    mrr_after: float | None
    loss_before: float | None
    loss_after: float | None
    num_pairs: int
    num_held_out: int
    losses: tuple[float, ...]
    num_tokens: int
    num_parameters: int
    note: str


def info_nce(
    docs: torch.Tensor, pairs: torch.Tensor, doc_ids: np.ndarray, pair_ids: np.ndarray, temperature: float
) -> torch.Tensor:
    """Eq. 3: mean of -log(exp(s+ / tau) / (exp(s+ / tau) + sum exp(s- / tau))), s the cosine.

    Args:
        docs: (n, d) unit vectors; row i belongs to pair i.
        pairs: (m, d) unit vectors, m >= n; rows from n on are hard negatives.
        doc_ids: (n,) document of each row of `docs`.
        pair_ids: (m,) document of each row of `pairs`. Another pair of the same document is no negative.
        temperature: tau, above 0.
    """
    scores = docs @ pairs.T / temperature
    same = torch.from_numpy(doc_ids[:, None] == pair_ids[None, :])
    same[torch.arange(len(docs)), torch.arange(len(docs))] = False
    scores = scores.masked_fill(same.to(scores.device), float("-inf"))
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(docs), device=scores.device))


def mean_reciprocal_rank(docs: np.ndarray, pairs: np.ndarray, doc_ids: np.ndarray, pair_ids: np.ndarray) -> float:
    """Mean over documents and their own pairs of 1 / rank among the pairs of all other documents.

    Args:
        docs: (n, d) unit vectors.
        pairs: (m, d) unit vectors.
        doc_ids: (n,) ids of the documents; each has at least one pair.
        pair_ids: (m,) document of each pair.

    Returns:
        In (0, 1]; 1 when every own pair beats all foreign ones. Equal scores count against the own pair.
    """
    scores = docs @ pairs.T
    ranks = []
    for row, doc_id in zip(scores, doc_ids):
        own = pair_ids == doc_id
        ranks += [1.0 / (1 + int((row[~own] >= score).sum())) for score in row[own]]
    return float(np.mean(ranks))


def tune_encoder(
    pairs: Sequence[TrainingPair],
    *,
    model: str,
    output_dir: str,
    temperature: float,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    max_tokens: int,
    hard_negatives: int,
    held_out_share: float,
    seed: int,
) -> Alignment:
    """Tune `model` on (document, pair) and save it; too little to learn from saves it as it is and says so.

    Args:
        pairs: (doc_id, document text, pair text), in any order.
        model: see `encoder.resolve_model`.
        output_dir: a folder of sentence-transformers, written whole or not at all.
        temperature: tau of Eq. 3.
        learning_rate: peak, after a linear rise over the first tenth of the steps; then falls linearly to 0.
        epochs: passes over the pairs.
        batch_size: pairs a step; the others in it are the negatives.
        max_tokens: texts are cut here.
        hard_negatives: per pair, drawn from ranks 2 to 200 of the untuned encoder's order.
        held_out_share: of the documents, by hash, kept out of training to measure the alignment.
        seed: of the split, the order, the draw and dropout.

    Raises:
        InputError: the model cannot be loaded.
    """
    ordered = sorted(set(pairs))
    documents = {doc_id: text for doc_id, text, _ in ordered}
    held_out = _hold_out(list(documents), held_out_share, seed)
    train = [pair for pair in ordered if pair[0] not in held_out]
    encoder = load_encoder(model, torch.float32, max_tokens, batch_size)
    before = _alignment(encoder, ordered, documents, held_out, temperature)
    note = ""
    losses: tuple[float, ...] = ()
    num_tokens = 0
    after = before
    if len(train) < 4 or len({pair[0] for pair in train}) < 2:
        note = f"not tuned: {len(train)} pairs of {len({p[0] for p in train})} documents, at least 4 of 2 are needed"
        log.warning("encoder %s", note)
    else:
        losses, num_tokens = _train(
            encoder,
            train,
            documents,
            temperature=temperature,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            hard_negatives=hard_negatives,
            seed=seed,
        )
        after = _alignment(encoder, ordered, documents, held_out, temperature)
    _save(encoder, Path(output_dir))
    trained = len(train) if losses else 0
    measured = (before[0], after[0], before[1], after[1])
    return Alignment(*measured, trained, len(held_out), losses, num_tokens, encoder.num_parameters, note)


def _hold_out(doc_ids: list[str], share: float, seed: int) -> frozenset[str]:
    def rank(doc_id: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{doc_id}".encode(), digest_size=8).digest()

    return frozenset(sorted(doc_ids, key=rank)[: int(share * len(doc_ids))])


def _alignment(
    encoder: Encoder,
    pairs: list[TrainingPair],
    documents: dict[str, str],
    held_out: frozenset[str],
    temperature: float,
) -> tuple[float, float] | tuple[None, None]:
    """(mean reciprocal rank, Eq. 3) of the held-out documents among the pairs of all."""
    if not held_out or len(documents) < 2:
        return None, None
    theirs_first = sorted(pairs, key=lambda pair: pair[0] not in held_out)
    own = np.array([pair[0] for pair in theirs_first])
    vectors = encoder.encode([pair[2] for pair in theirs_first])
    chosen = sorted(held_out)
    of_doc = dict(zip(chosen, encoder.encode([documents[doc_id] for doc_id in chosen])))
    rank = mean_reciprocal_rank(np.stack([of_doc[doc_id] for doc_id in chosen]), vectors, np.array(chosen), own)
    theirs = own[np.isin(own, chosen)]
    docs = torch.from_numpy(np.stack([of_doc[doc_id] for doc_id in theirs]))
    return rank, float(info_nce(docs, torch.from_numpy(vectors), theirs, own, temperature))


def _train(
    encoder: Encoder,
    pairs: list[TrainingPair],
    documents: dict[str, str],
    *,
    temperature: float,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    hard_negatives: int,
    seed: int,
) -> tuple[tuple[float, ...], int]:
    """The loop; returns the loss of each step and the tokens seen."""
    rng = np.random.default_rng(seed)
    own = np.array([pair[0] for pair in pairs])
    texts = [pair[2] for pair in pairs]
    negatives = _mine(encoder, own, texts, documents, hard_negatives, rng)
    steps = list(_batches(len(pairs), batch_size, epochs, rng))
    optimizer = torch.optim.AdamW(encoder.model.parameters(), lr=learning_rate, weight_decay=_WEIGHT_DECAY)
    rise = max(1, int(_WARM_UP_SHARE * len(steps)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / rise, (len(steps) - i) / max(1, len(steps) - rise + 1))
    )
    losses: list[float] = []
    num_tokens = 0
    encoder.model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for batch in tqdm(steps, desc="tune encoder", unit="step", leave=False, mininterval=5.0):
            extra = negatives[batch].ravel()
            columns = np.concatenate([batch, extra])
            unique, back = np.unique(own[batch], return_inverse=True)
            docs, doc_tokens = _forward(encoder, [documents[doc_id] for doc_id in unique])
            vectors, pair_tokens = _forward(encoder, [texts[i] for i in columns])
            loss = info_nce(docs[torch.from_numpy(back)], vectors, own[batch], own[columns], temperature)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            num_tokens += doc_tokens + pair_tokens
    encoder.model.eval()
    return tuple(losses), num_tokens


def _forward(encoder: Encoder, texts: list[str]) -> tuple[torch.Tensor, int]:
    """Unit vectors (n, d) with gradients, in bfloat16 arithmetic where it is native, and the tokens padded to."""
    tokens = encoder.tokenize(texts)
    width = max(encoder.width(t) for t in tokens)
    device = encoder.model.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=best_dtype("auto") == torch.bfloat16):
        return encoder.forward(tokens, width), width * len(tokens)


def _batches(num_pairs: int, batch_size: int, epochs: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Shuffled batches of every epoch; a last one of a single pair, which has no negatives, is left out."""
    for _ in range(epochs):
        order = rng.permutation(num_pairs)
        for start in range(0, num_pairs, batch_size):
            batch = order[start : start + batch_size]
            if len(batch) > 1:
                yield batch


def _mine(
    encoder: Encoder,
    own: np.ndarray,
    texts: list[str],
    documents: dict[str, str],
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(n, count) indices of foreign pairs that the untuned encoder finds close to each pair's document."""
    if not count:
        return np.empty((len(own), 0), dtype=np.int64)
    unique, back = np.unique(own, return_inverse=True)
    scores = encoder.encode([documents[doc_id] for doc_id in unique]) @ encoder.encode(texts).T
    scores[unique[:, None] == own[None, :]] = -np.inf
    low, high = _HARD_RANKS
    mined = []
    for row in scores[back]:
        foreign = np.argsort(-row, kind="stable")[: int(np.isfinite(row).sum())]
        pool = foreign[low - 1 : high] if len(foreign) >= low else foreign
        mined.append(rng.choice(pool, size=count, replace=len(pool) < count))
    return np.array(mined)


def _save(encoder: Encoder, folder: Path) -> None:
    """Write beside the target and rename, so that a killed job leaves no half model under the final name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    encoder.model.save(str(unfinished), create_model_card=False)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)

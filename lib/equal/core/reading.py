"""How one document is read: extract, lift answers, refine, check, embed. The model and the encoder are handed in.

    passages -> ask extract -> (quoted: lift answers) -> (refine, reason: ask again) -> check each pair -> embed

Everything is a function of the document, the recipe and the replies, so neither partitioning nor the order
of replies shows in the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from equal.core.allowance import NOTHING, UNLIMITED, Account, Allowance, Amount, Ask, AskAll, Count, ask_within
from equal.core.chat import NOT_SENT, Reply, Request
from equal.core.checks import reject_answer, reject_prompt, reject_question, same_question
from equal.core.pairs import Pair, Pass, Passage
from equal.core.qa import QA, Prompt
from equal.core.sentences import best_quote
from equal.core.shortening import ask_in_parts, ask_what_fits

#: texts -> (n, d) float32 unit rows
Encode = Callable[[list[str]], Awaitable[np.ndarray]]
#: benchmark lookup: text -> hit or None
Match = Callable[[str], object]

ACCEPTED, VOID, PROPOSED = "accepted", "void", "proposed"


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a document's pairs but the document and the replies.

    Attributes:
        extract: the first pass; its kind says whether answers are written or quoted.
        refine: the second pass, or None.
        min_answer_similarity: quoted: cosine under which a question counts as unanswered.
        min_grounded_share: of an answer's content words that must stand in the passage.
        refine_model: of the second pass; "" is `model`.
        reason: the pass that works out the answers of what is left of the pairs (App. T), or None.
        teacher_model: of that pass; "" is `model`.
    """

    extract: Prompt
    refine: Prompt | None
    model: str
    temperature: float
    max_tokens: int
    min_answer_similarity: float
    min_grounded_share: float
    refine_model: str = ""
    reason: Prompt | None = None
    teacher_model: str = ""

    @property
    def prompts(self) -> list[Prompt]:
        """Those of its passes, in order."""
        return [prompt for prompt in (self.extract, self.refine, self.reason) if prompt]

    def request(self, prompt: Prompt, passage: Passage, drafts: Sequence[QA] = ()) -> Request:
        """What is asked about one passage."""
        return Request(
            messages=prompt.messages(passage.text, drafts),
            model={"refine": self.refine_model, "reason": self.teacher_model}.get(prompt.kind) or self.model,
            parameters={"temperature": self.temperature, "max_tokens": self.max_tokens},
            schema=prompt.schema,
            prompt_version=prompt.version,
            passage_key=passage.key,
        )


@dataclass
class Reading:
    """What a document gave.

    Attributes:
        passes: one to three.
        pairs: accepted and rejected, in the order of the document.
        setbacks: (reason, detail) of replies that gave no pairs at all.
        num_skipped: passages that were not read.
        need: the most that was taken and wanted at once; nothing where the allowance has no limit.
    """

    passes: list[Pass]
    pairs: list[Pair] = field(default_factory=list)
    setbacks: list[tuple[str, str]] = field(default_factory=list)
    num_skipped: int = 0
    need: Amount = NOTHING

    @property
    def unserved(self) -> int:
        """Passages that the endpoint failed, in any pass, whatever else the document gave."""
        return sum(done.unserved for done in self.passes)

    @property
    def status(self) -> str:
        """`accepted` if a pair counts, else the commonest reason why none does, else `void`.

        A document is not read as long as something about it was not sent, whatever else it gave: `not_sent`.
        """
        reasons = Counter([reason for reason, _ in self.setbacks] + [pair.reason for pair in self.pairs])
        if NOT_SENT in reasons:
            return NOT_SENT
        if any(not pair.reason for pair in self.pairs):
            return ACCEPTED
        return reasons.most_common(1)[0][0] if reasons else VOID

    @property
    def error(self) -> str:
        """For a person: what went wrong where, at most 2,000 characters; no reply text, no key."""
        notes = [note for done in self.passes for note in done.notes]
        notes += [f"{reason}: {detail}" for reason, detail in self.setbacks]
        notes += [f"{pair.reason}: {pair.evidence}" for pair in self.pairs if pair.evidence]
        notes += [f"{self.num_skipped} passages beyond max_passages were not read"] if self.num_skipped else []
        return "; ".join(notes)[:2000]


async def read_document(
    passages: Sequence[Passage],
    recipe: Recipe,
    *,
    ask: Ask,
    count: Count,
    encode: Encode,
    match: Match,
    allowance: Allowance = UNLIMITED,
    num_skipped: int = 0,
) -> Reading:
    """Read one document.

    Args:
        passages: what of it is read.
        recipe: prompts, decoding, thresholds.
        ask: one request -> one reply; never raises for what a server may do.
        count: the size of a prompt, likewise; called only if the allowance has a limit.
        encode: texts -> (n, d) unit rows.
        match: benchmark lookup on question and answer.
        allowance: what the document may take; a request whose worst case is above it is not sent.
        num_skipped: passages beyond the limit, for the record.
    """
    account = Account(allowance)
    ask_all = partial(ask_within, account, ask=ask, count=count)
    first = Pass("extract", recipe.extract.version)
    reading = Reading([first], num_skipped=num_skipped)
    if not passages:
        reading.setbacks.append((VOID, "no sentence to read"))
    about = partial(recipe.request, recipe.extract)
    for asked in await ask_in_parts(passages, about, ask_all, recipe.max_tokens, first):
        reading.pairs += _proposed(recipe.extract, asked.passage, asked.reply, reading)
    _check_questions(reading.pairs, recipe)
    if recipe.extract.kind == "quoted":
        await _lift_answers(reading.pairs, recipe.min_answer_similarity, encode)
    if recipe.refine is not None:
        await _mend(reading, recipe, recipe.refine, ask_all)
        _check_questions(reading.pairs, recipe)
    if recipe.reason is not None:
        await _mend(reading, recipe, recipe.reason, ask_all)
    _check_answers(reading.pairs, recipe, match)
    _check_leaks(reading.pairs, recipe)
    accepted = [pair for pair in reading.pairs if not pair.reason]
    await _embed(accepted, encode, with_similarity=recipe.extract.kind == "quoted")
    reading.need = account.need
    return reading


def _proposed(prompt: Prompt, passage: Passage, reply: Reply, reading: Reading) -> list[Pair]:
    qas = _parsed(prompt, passage, reply, reading)
    pairs = [Pair(passage, qa.question, qa.answer) for qa in qas or ()]
    for pair in pairs[prompt.max_pairs :]:
        pair.drop("surplus", f"beyond max_pairs {prompt.max_pairs}")
    return pairs


def _parsed(prompt: Prompt, passage: Passage, reply: Reply, reading: Reading) -> tuple[QA, ...] | None:
    """The reply's pairs; None and a setback when it has none to give."""
    if reply.failure:
        reading.setbacks.append((reply.failure, f"passage {passage.index}, {prompt.kind}: {reply.error}"))
        return None
    parsed = prompt.parse(reply.text, reply.finish_reason)
    if parsed.rejection:
        detail = f"passage {passage.index}, {prompt.kind} reply of {reply.completion_tokens} tokens"
        reading.setbacks.append((parsed.rejection, detail))
        return None
    return parsed.pairs


async def _lift_answers(pairs: Sequence[Pair], min_similarity: float, encode: Encode) -> None:
    """Give each question the sentences of its passage that answer best; one encoder call a document."""
    wanted = [pair for pair in pairs if not pair.reason and pair.question]
    if not wanted:
        return
    passages = {pair.passage.index: pair.passage for pair in wanted}
    sentences = [sentence for passage in passages.values() for sentence in passage.sentences]
    vectors = await encode([sentence.strip() for sentence in sentences] + [pair.question for pair in wanted])
    ends = np.cumsum([len(passage.sentences) for passage in passages.values()])
    spans = {index: (end - len(passages[index].sentences), end) for index, end in zip(passages, ends)}
    for pair, vector in zip(wanted, vectors[len(sentences) :]):
        start, stop = spans[pair.passage.index]
        quote = best_quote(pair.question, vector, pair.passage.sentences, vectors[start:stop])
        if quote is None:
            pair.drop("unanswered", "no sentence in the passage")
            continue
        pair.answer, pair.similarity = quote.text, quote.similarity
        if quote.similarity < min_similarity:
            pair.drop("unanswered", f"best cosine {quote.similarity:.2f}, wanted {min_similarity:.2f}")


async def _mend(reading: Reading, recipe: Recipe, prompt: Prompt, ask_all: AskAll) -> None:
    """A further pass. A pair counts only if this pass returns it: no reply, no pair."""
    drafts: dict[int, list[Pair]] = {}
    for pair in reading.pairs:
        if not pair.reason:
            drafts.setdefault(pair.passage.index, []).append(pair)
    if not drafts:
        return
    reading.passes.append(Pass(prompt.kind, prompt.version))
    wanted = [
        (group[0].passage, partial(recipe.request, prompt, drafts=[QA(p.question, p.answer) for p in group]))
        for group in drafts.values()
    ]
    for group, asked in zip(
        drafts.values(), await ask_what_fits(wanted, ask_all, recipe.max_tokens, reading.passes[-1])
    ):
        reply = asked.reply
        mended = _parsed(prompt, group[0].passage, reply, reading)
        if mended is None:
            reason, _ = reading.setbacks.pop()
            for pair in group:
                pair.drop(reason, f"{prompt.kind} reply: {reply.error or reason}")
            continue
        by_number = {qa.number: qa for qa in reversed(mended)}
        for number, pair in enumerate(group, start=1):
            qa = by_number.get(number)
            if qa is None:
                pair.drop("refused")
            elif (question := qa.question or pair.question, qa.answer) != (pair.question, pair.answer):
                pair.question, pair.answer, pair.similarity = question, qa.answer, None


def _check_questions(pairs: Sequence[Pair], recipe: Recipe) -> None:
    """Before anything is spent on the answer."""
    examples = [qa.question for prompt in recipe.prompts for qa in prompt.example_pairs]
    seen: set[str] = set()
    for pair in pairs:
        if pair.reason:
            continue
        rejection = reject_question(pair.question, examples)
        if rejection is not None:
            pair.drop(rejection.reason, rejection.evidence)
        elif same_question(pair.question) in seen:
            pair.drop("duplicate")
        seen.add(same_question(pair.question))


def _check_answers(pairs: Sequence[Pair], recipe: Recipe, match: Match) -> None:
    for pair in pairs:
        qa, passage = QA(pair.question, pair.answer), pair.passage.text
        rejection = reject_answer(qa, passage, min_grounded_share=recipe.min_grounded_share, match=match)
        if rejection is not None:
            pair.drop(rejection.reason, rejection.evidence)


def _check_leaks(pairs: Sequence[Pair], recipe: Recipe) -> None:
    """What the model was told is no knowledge of the passage, whatever made the model repeat it."""
    fixed = [prompt.fixed_text for prompt in recipe.prompts]
    for pair in pairs:
        qa, passage = QA(pair.question, pair.answer), pair.passage.text
        rejection = next(filter(None, (reject_prompt(qa, passage, text) for text in fixed if not pair.reason)), None)
        if rejection is not None:
            pair.drop(rejection.reason, rejection.evidence)


async def _embed(pairs: Sequence[Pair], encode: Encode, *, with_similarity: bool) -> None:
    """Embeddings of question and answer together; where asked for and unknown yet, the cosine between the two."""
    if not pairs:
        return
    unknown = [pair for pair in pairs if with_similarity and pair.similarity is None]
    texts = [f"{pair.question}\n{pair.answer}" for pair in pairs]
    texts += [text for pair in unknown for text in (pair.question, pair.answer)]
    vectors = await encode(texts)
    for pair, vector in zip(pairs, vectors):
        pair.embedding = vector
    rest = vectors[len(pairs) :]
    for pair, question, answer in zip(unknown, rest[::2], rest[1::2]):
        pair.similarity = float(np.dot(question, answer))

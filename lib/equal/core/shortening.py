"""Ask about a passage, and once more about as much of it as fits when the server has no room for all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from equal.core.allowance import AskAll
from equal.core.chat import Reply, Request

#: the sentences of a passage; how many of its first sentences -> the request
Wanted = tuple[Sequence[str], Callable[[int], Request]]

#: what vLLM says, in its several versions, when it has counted the whole prompt
_TOLD = (
    re.compile(r"maximum context length is (\d+) tokens.*?(?:contains|has) (\d+) input tokens"),
    re.compile(r"maximum context length is (\d+) tokens.*?\((\d+) in the messages"),
)
#: a passage's tokens may be longer than those of the prompt around it, so that its end holds fewer of them
_MARGIN = 1.25


@dataclass(frozen=True)
class Asked:
    """What was asked about a passage's first sentences, and the reply."""

    num_sentences: int
    request: Request
    reply: Reply


async def ask_what_fits(wanted: Sequence[Wanted], ask_all: AskAll, max_tokens: int) -> list[list[Asked]]:
    """Ask about the passages of one pass.

    Args:
        wanted: of each passage its sentences, and how many of its first sentences -> the request.
        ask_all: requests -> a reply each.
        max_tokens: of a reply.

    Returns:
        Of each passage one, or two when all of it was too long for the server's context.
    """
    wholes = [request_about(len(sentences)) for sentences, request_about in wanted]
    asked = [
        [Asked(len(sentences), whole, reply)]
        for (sentences, _), whole, reply in zip(wanted, wholes, await ask_all(wholes))
    ]
    shorter = []
    for tries, (sentences, request_about) in zip(asked, wanted):
        if tries[0].reply.failure == "context_too_short":
            chars = sum(len(message["content"]) for message in tries[0].request.messages)
            if num := sentences_that_fit(sentences, chars, max_tokens, tries[0].reply.error):
                shorter.append((tries, num, request_about(num)))
    if shorter:
        replies = await ask_all([request for _, _, request in shorter])
        for (tries, num, request), reply in zip(shorter, replies):
            tries.append(Asked(num, request, reply))
    return asked


def sentences_that_fit(sentences: Sequence[str], prompt_chars: int, max_tokens: int, error: str) -> int:
    """How many of a passage's first sentences to keep; 0 when even the first is too much.

    If the server tells context and prompt in tokens, so many characters are dropped from the end as stand for what is
    too much; else half of the sentences. vLLM stops counting one token beyond its limit and then says "at least",
    which tells nothing.

    Args:
        sentences: of the passage.
        prompt_chars: of the whole prompt, passage included.
        max_tokens: of the reply, for which the context must have room too.
        error: the server's words.
    """
    told = next((found for pattern in _TOLD if (found := pattern.search(error))), None)
    if told is None:
        return len(sentences) // 2
    context, prompt_tokens = int(told[1]), max(int(told[2]), 1)
    surplus = (prompt_tokens + max_tokens - context) * prompt_chars / prompt_tokens * _MARGIN
    room = sum(map(len, sentences)) - surplus
    # fewer than all, whatever the numbers say: the same request would be refused again
    return sum(end <= room for end in accumulate(map(len, sentences[:-1])))

"""Ask about a passage, and once more about as much of it as fits when the server has no room for all of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from equal.core.chat import Reply, Request

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


async def ask_what_fits(
    sentences: Sequence[str],
    request_about: Callable[[int], Request],
    ask: Callable[[Request], Awaitable[Reply]],
    max_tokens: int,
) -> list[Asked]:
    """Ask about a passage.

    Args:
        sentences: of the passage.
        request_about: how many of its first sentences -> the request.
        ask: one request -> one reply.
        max_tokens: of a reply.

    Returns:
        One, or two when all of it was too long for the server's context.
    """
    whole = request_about(len(sentences))
    asked = [Asked(len(sentences), whole, await ask(whole))]
    if asked[0].reply.failure == "context_too_short":
        chars = sum(len(message["content"]) for message in whole.messages)
        num = sentences_that_fit(sentences, chars, max_tokens, asked[0].reply.error)
        if num:
            request = request_about(num)
            asked.append(Asked(num, request, await ask(request)))
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

"""Ask about a passage, and once more about as much of it as fits when the server has no room for all of it.

    whole -> too long -> its first sentences -> answered -> the rest, as a passage of its own -> too long -> its first

So a passage takes four requests at most, and what stays unread of it is noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from equal.core.allowance import AskAll
from equal.core.chat import Reply, Request
from equal.core.pairs import Pass, Passage

#: a passage, or its first sentences -> the request
About = Callable[[Passage], Request]

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

    passage: Passage
    request: Request
    reply: Reply


async def ask_in_parts(
    passages: Sequence[Passage], about: About, ask_all: AskAll, max_tokens: int, done: Pass
) -> list[Asked]:
    """`ask_what_fits`; what was cut off a passage is asked about as a further one, if the beginning was answered.

    Where the beginning was not, its reply says why the passage was not read.

    Returns:
        In the order of the document; the further passages have the indexes, and keys in `done`, after all the others.
    """
    asked = await ask_what_fits([(passage, about) for passage in passages], ask_all, max_tokens, done)
    rests: dict[int, Passage] = {}
    for passage, begun in zip(passages, asked):
        if (num := len(begun.passage.sentences)) < len(passage.sentences):
            if begun.reply.failure:
                done.notes.append(f"the rest of passage {passage.index} was not read")
                continue
            rest = passage.after(num, index=max(p.index for p in passages) + 1 + len(rests))
            rests[passage.index] = rest
            done.notes.append(f"the rest of passage {passage.index} is passage {rest.index}")
    if not rests:
        return asked
    wanted = [(rest, about) for rest in rests.values()]
    further = dict(zip(rests, await ask_what_fits(wanted, ask_all, max_tokens, done)))
    for index, rest in rests.items():
        if len(further[index].passage.sentences) < len(rest.sentences):
            done.notes.append(f"the rest of passage {rest.index} was not read")
    return [part for begun in asked for part in (begun, further.get(begun.passage.index)) if part]


async def ask_what_fits(
    wanted: Sequence[tuple[Passage, About]], ask_all: AskAll, max_tokens: int, done: Pass
) -> list[Asked]:
    """Ask about the passages of one pass.

    Args:
        wanted: passages, and what is asked about them.
        ask_all: requests -> a reply each.
        max_tokens: of a reply.
        done: gets requests, replies, keys and notes.

    Returns:
        Of each passage what was asked last: about all of it, or less when that was too long for the server's context.
    """
    wholes = [about(passage) for passage, about in wanted]
    asked = [
        [Asked(passage, whole, reply)] for (passage, _), whole, reply in zip(wanted, wholes, await ask_all(wholes))
    ]
    shorter = []
    for tries, (passage, about) in zip(asked, wanted):
        if tries[0].reply.failure == "context_too_short":
            chars = sum(len(message["content"]) for message in tries[0].request.messages)
            if num := sentences_that_fit(passage.sentences, chars, max_tokens, tries[0].reply.error):
                shorter.append((tries, passage.first(num), about(passage.first(num))))
                total = len(passage.sentences)
                done.notes.append(f"passage {passage.index} shortened to {num} of {total} sentences, {done.name}")
    if shorter:
        replies = await ask_all([request for _, _, request in shorter])
        for (tries, part, request), reply in zip(shorter, replies):
            tries.append(Asked(part, request, reply))
    for tries in asked:
        done.add([one.request for one in tries], [one.reply for one in tries])
    return [tries[-1] for tries in asked]


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

"""Prompts and what comes back: rendering, reply schemas, and parsers that return pairs or a typed rejection.

A prompt is one of four kinds:

    written   passage -> questions with answers, both in the model's words (the paper's way)
    quoted    passage -> questions only; the answer is lifted from the passage by `core.sentences`
    refine    passage and drafted pairs -> the pairs mended, without those that cannot be
    reason    passage and drafted pairs -> answers worked out step by step to the same questions (App. T)

The fixed part (instructions and worked examples as earlier turns) comes first and the passage last, so that
a server's prefix cache holds the fixed part. What a passage says can change neither: it stands in one place,
between delimiters that are escaped inside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from equal.core.chat import Message
from equal.core.ngrams import words

MIN_QUESTION_CHARS = 8
#: what a plain-text reply says when a passage holds no pair
VOID = "VOID"
#: what of a pair stands in a reply of each kind
_FIELDS = {
    "written": ("question", "answer"),
    "quoted": ("question",),
    "refine": ("number", "question", "answer"),
    "reason": ("number", "answer"),
}
#: characters of English text a token: no tokenizer packs it tighter than the first, the second is usual
_MOST_CHARS_PER_TOKEN, _USUAL_CHARS_PER_TOKEN = 8, 4


@dataclass(frozen=True)
class QA:
    """A question and its answer, empty until it is known; `number` is the draft it mends, counted from 1."""

    question: str
    answer: str = ""
    number: int = 0


@dataclass(frozen=True)
class Example:
    """A worked example: a passage, the pairs a good reply holds, and for `refine` the drafts it was given."""

    passage: str
    pairs: tuple[QA, ...]
    drafts: tuple[QA, ...] = ()


@dataclass(frozen=True)
class Parsed:
    """A reply as pairs, or the reason why there are none.

    Attributes:
        pairs: in order; empty when rejected or void.
        rejection: "" or one of oversized, empty, looping, truncated, not_json, wrong_schema.
    """

    pairs: tuple[QA, ...] = ()
    rejection: str = ""


@dataclass(frozen=True)
class Prompt:
    """How one pass asks, and how its replies read.

    Attributes:
        name: domain and kind, such as general/quoted.
        kind: written | quoted | refine | reason.
        system: instructions; `{max_pairs}` is replaced.
        request: a user turn; `{passage}` and, for refine and reason, `{drafts}` are replaced.
        examples: shown as earlier turns.
        structured: replies are JSON by schema; otherwise plain `Q:` and `A:` lines.
        max_pairs: pairs a passage.
        question_chars: longest question; a bound of the schema, which the parser repeats as servers may ignore it.
        answer_chars: longest answer, likewise.
    """

    name: str
    kind: str
    system: str
    request: str
    examples: tuple[Example, ...]
    structured: bool
    max_pairs: int
    question_chars: int
    answer_chars: int

    @cached_property
    def version(self) -> str:
        """Name and a hash of everything that shapes the messages, as in `general/quoted@1f2e3d4c`."""
        content = json.dumps(asdict(self), sort_keys=True)
        return f"{self.name}@{hashlib.blake2b(content.encode(), digest_size=4).hexdigest()}"

    def messages(self, passage: str, drafts: Sequence[QA] = ()) -> tuple[Message, ...]:
        """The turns for one passage; all but the last are the same for every passage."""
        return (*self._fixed, {"role": "user", "content": self._user_turn(passage, drafts)})

    @cached_property
    def schema(self) -> dict[str, Any] | None:
        """JSON schema of a reply, every string and array bounded; None for plain text.

        No `pattern`: one crashed a server's grammar compiler for every request in flight.
        """
        if not self.structured:
            return None
        question = {"type": "string", "minLength": MIN_QUESTION_CHARS, "maxLength": self.question_chars}
        if self.kind == "quoted":
            return _object({"questions": {"type": "array", "items": question, "maxItems": self.max_pairs}})
        answer = {"type": "string", "minLength": 1, "maxLength": self.answer_chars}
        types = {"number": {"type": "integer", "minimum": 1, "maximum": self.max_pairs}, "answer": answer}
        pair = _object({name: types.get(name, question) for name in _FIELDS[self.kind]})
        return _object({"pairs": {"type": "array", "items": pair, "maxItems": self.max_pairs}})

    def parse(self, text: str, finish_reason: str) -> Parsed:
        """Read a reply; never raises.

        Args:
            text: the reply.
            finish_reason: the server's; `length` means that it was cut.
        """
        text = clean(text)
        if finish_reason == "oversized":
            return Parsed(rejection="oversized")
        if not text:
            return Parsed(rejection="truncated" if finish_reason == "length" else "empty")
        if finish_reason == "length":
            return Parsed(rejection="looping" if is_looping(text) else "truncated")
        return self._parse_json(text) if self.structured else self._parse_plain(text)

    @property
    def example_pairs(self) -> tuple[QA, ...]:
        """Every pair that the worked examples show; one that comes back is a copy."""
        return tuple(qa for example in self.examples for qa in (*example.pairs, *example.drafts))

    @cached_property
    def fixed_text(self) -> str:
        """What the model is told, whatever the passage."""
        return "\n".join(message["content"] for message in self._fixed)

    @cached_property
    def _fixed(self) -> tuple[Message, ...]:
        turns = [{"role": "system", "content": _fill(self.system, max_pairs=str(self.max_pairs)).strip()}]
        for example in self.examples:
            turns.append({"role": "user", "content": self._user_turn(example.passage, example.drafts)})
            turns.append({"role": "assistant", "content": self._reply(example.pairs)})
        return tuple(turns)

    def _user_turn(self, passage: str, drafts: Sequence[QA]) -> str:
        drafted = escape("\n".join(_plain(QA(d.question, d.answer, i)) for i, d in enumerate(drafts, start=1)))
        held = escape(passage).strip()
        return _fill(self.request, passage=held, max_pairs=str(self.max_pairs), drafts=drafted).strip()

    def _reply(self, pairs: Sequence[QA]) -> str:
        """A reply as this prompt wants it."""
        pairs = pairs[: self.max_pairs]
        if not self.structured:
            return "\n".join(f"Q: {p.question}" if self.kind == "quoted" else _plain(p) for p in pairs) or VOID
        if self.kind == "quoted":
            return _as_json({"questions": [p.question for p in pairs]})
        return _as_json({"pairs": [{name: getattr(p, name) for name in _FIELDS[self.kind]} for p in pairs]})

    def _parse_json(self, text: str) -> Parsed:
        start = text.find("{")
        try:
            value, _ = json.JSONDecoder().raw_decode(text, max(start, 0))
        except (ValueError, RecursionError):
            return Parsed(rejection="not_json")
        items = value.get("questions" if self.kind == "quoted" else "pairs") if isinstance(value, dict) else None
        if not isinstance(items, list):
            return Parsed(rejection="wrong_schema")
        pairs = [pair for item in items if (pair := self._pair(item))]
        return Parsed(tuple(pairs)) if len(pairs) == len(items) else Parsed(rejection="wrong_schema")

    def _pair(self, item: object) -> QA | None:
        """One item of a reply, or None when it breaks the schema."""
        fields = {"question": item} if self.kind == "quoted" else item
        if not isinstance(fields, dict):
            return None
        found = vars(QA("")) | {name: fields.get(name) for name in _FIELDS[self.kind]}
        question, answer, number = found["question"], found["answer"], found["number"]
        if not isinstance(question, str) or not isinstance(answer, str) or type(number) is not int:
            return None
        if len(question) > self.question_chars or len(answer) > self.answer_chars:
            return None
        return QA(clean(question), clean(answer), number)

    def _parse_plain(self, text: str) -> Parsed:
        if text.strip(" .").upper() == VOID:
            return Parsed()
        pairs = []
        numbers_and_blocks = _QUESTION.split(text)[1:]
        for number, block in zip(numbers_and_blocks[::2], numbers_and_blocks[1::2]):
            question, *rest = _ANSWER.split(block, maxsplit=1)
            fields = {"question": question.strip(), "answer": "".join(rest), "number": int(number or 0)}
            pair = self._pair(fields["question"] if self.kind == "quoted" else fields)
            if pair is None:
                return Parsed(rejection="wrong_schema")
            pairs.append(pair)
        return Parsed(tuple(pairs)) if pairs else Parsed(rejection="wrong_schema")


#: the start of a line: `Q:`, `Q2:`, `3. Q:`, `**Question 2:**`
_QUESTION = re.compile(r"(?im)^[ \t]*(?:\d{1,3}[.)][ \t]*)?\**Q(?:uestion)?[ \t]*(\d{0,3})[:.]\**")
_ANSWER = re.compile(r"(?im)^[ \t]*\**A(?:nswer)?[ \t]*\d{0,3}[:.]\**[ \t]*")


def fewest_tokens(prompt: Prompt, max_tokens: int) -> int:
    """A context shorter than this cannot hold the prompt's fixed part and a reply, whatever the tokenizer."""
    return _fixed_chars(prompt) // _MOST_CHARS_PER_TOKEN + max_tokens


def usual_tokens(prompt: Prompt, passage_chars: int) -> int:
    """A guess at the size of a prompt with a passage of so many characters."""
    return (_fixed_chars(prompt) + passage_chars) // _USUAL_CHARS_PER_TOKEN


def _fixed_chars(prompt: Prompt) -> int:
    return sum(len(message["content"]) for message in prompt.messages(""))


def passage_key(text: str) -> str:
    """128-bit hex hash of a passage."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def clean(text: str) -> str:
    """Strip, and drop what no table or file can hold: lone surrogates, and control characters but newline and tab."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text.replace("\r\n", "\n")).strip()


def escape(text: str) -> str:
    """Make a passage unable to end its delimiters or to open a turn.

    Servers tokenise special tokens wherever they stand in a message, so a document that quotes a chat
    template would otherwise speak as the system or the assistant.
    """
    # whatever follows the name: a model reads `</passage x>`, or a tag that the template closes, as an end as well
    text = re.sub(r"(?i)<(?=\s*/?\s*(?:passage|drafts)\b)", "&lt;", text)
    text = re.sub(r"(?i)<(?=\s*/?\s*(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think)\s*>)", "&lt;", text)
    text = re.sub(r"<(?=[|｜])", "&lt;", text)
    return re.sub(
        r"(?i)\[(?=\s*/?\s*(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\s*\])", "&#91;", text
    )


def find_passage(text: str, turn: str) -> tuple[int, int] | None:
    """Where the passage that a user turn holds stands in its document; where it stands twice, the first place.

    >>> find_passage("One [INST] two. Three.", "<passage>\\nOne &#91;INST] two.\\n</passage>")
    (0, 15)
    """
    held = re.search(r"<passage>\s*(.+?)\s*</passage>", turn, re.DOTALL)
    if not held:
        return None
    pattern = re.escape(held[1])
    for plain, escaped in (("<", "&lt;"), ("[", "&#91;")):  # a document may hold either form
        pattern = pattern.replace(re.escape(escaped), f"(?:{re.escape(plain)}|{re.escape(escaped)})")
    found = re.search(pattern, text)
    return found.span() if found else None


def is_looping(text: str, ngram_words: int = 4) -> bool:
    """Whether more than half of the word n-grams repeat earlier ones, as when a decoder is caught in a cycle.

    >>> is_looping("the mean of " * 6), is_looping("What is the mean of a sample of independent draws?")
    (True, False)
    """
    tokens = words(text)
    grams = [tuple(tokens[i : i + ngram_words]) for i in range(len(tokens) - ngram_words + 1)]
    return len(grams) >= 2 * ngram_words and len(set(grams)) < len(grams) / 2


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _fill(template: str, **values: str) -> str:
    """Replace each {name} once, in one pass: what is put in is never read as a placeholder."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def _plain(pair: QA) -> str:
    return f"Q{pair.number or ''}: {pair.question}\nA{pair.number or ''}: {pair.answer}"


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)

"""A question and its answer as a chat: the one form in which pairs are exported, trained on and evaluated."""

from __future__ import annotations

Turn = dict[str, str]


def conversation(question: str, answer: str) -> dict[str, list[Turn]]:
    """The prompt and completion turns that `datasets` and TRL load as conversational prompt-completion data.

    >>> conversation("2 + 2?", "4")["completion"]
    [{'role': 'assistant', 'content': '4'}]
    """
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }

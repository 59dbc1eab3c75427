"""What is wrong with a configuration that no single setting can show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equal.config import RunConfig


def contradictions(config: RunConfig) -> list[str]:
    """One line for each: setting, value, what is allowed, remedy."""
    problems = []
    budget = config.budget
    if not (budget.documents or budget.fraction or budget.tokens or budget.money):
        problems.append(
            "budget: documents, fraction, tokens and money are all 0, so nothing could be extracted; "
            "set at least one above 0, such as budget.documents=200"
        )
    if budget.money and not (budget.prompt_price or budget.completion_price):
        problems.append(
            f"budget.money: is {budget.money:g}, but prompt_price and completion_price are both 0; "
            "give the price per million tokens"
        )
    if config.documents.min_chars > config.documents.max_chars:
        problems.append(
            f"documents.min_chars: is {config.documents.min_chars}, above documents.max_chars "
            f"{config.documents.max_chars}; lower it"
        )
    for pattern in config.quality.blocked_sources:
        try:
            re.compile(pattern)
        except re.error as error:
            problems.append(f"quality.blocked_sources: {pattern!r} is no regular expression ({error}); correct it")
    problems += [
        f"quality.languages: has {code!r}, allowed: codes of two letters (ISO 639-1), such as en"
        for code in config.quality.languages
        if not re.fullmatch("[a-z]{2}", code)
    ]
    if config.decontaminate.short_words > config.decontaminate.ngram_words:
        problems.append(
            f"decontaminate.short_words: is {config.decontaminate.short_words}, above decontaminate.ngram_words "
            f"{config.decontaminate.ngram_words}; lower it"
        )
    if "://" in config.storage.root:
        problems.append(
            f"storage.root: is {config.storage.root!r}, allowed: a folder that driver and executors share, such as a "
            "mounted file system or /Volumes/...; tables alone may lie elsewhere, in storage.schema"
        )
    if not config.run_name.replace("-", "").replace("_", "").isalnum():
        problems.append(f"run_name: is {config.run_name!r}, allowed: letters, digits, - and _")
    return problems

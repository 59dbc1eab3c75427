"""What is wrong with a configuration that the type and the range of a single setting cannot show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """One line for each: setting, value, what is allowed, remedy.

    Args:
        values: path of a setting to its value, such as {"budget.money": 0.0}. A rule is passed over when a setting
            that it looks at is not among them, as one that could not be read.
    """
    return [
        problem
        for paths, rule in _RULES.items()
        if all(path in values for path in paths)
        for problem in rule(*(values[path] for path in paths))
    ]


def _budget_of_nothing(*limits: float) -> Iterator[str]:
    if not any(limits):
        yield (
            "budget: documents, fraction, tokens and money are all 0, so nothing could be extracted; "
            "set at least one above 0, such as budget.documents=200"
        )


def _money_without_prices(money: float, prompt_price: float, completion_price: float) -> Iterator[str]:
    if money and not (prompt_price or completion_price):
        yield (
            f"budget.money: is {money:g}, but prompt_price and completion_price are both 0; "
            "give the price per million tokens"
        )


def _money_of_two_models(
    money: float, model: str, refine: bool, refine_model: str, reason: bool, teacher_model: str
) -> Iterator[str]:
    for asked, name, other in ((refine, "refine_model", refine_model), (reason, "teacher_model", teacher_model)):
        if money and asked and other not in ("", model):
            yield (
                f"budget.money: is {money:g}, but endpoint.{name} {other!r} has a price of its own, which "
                "the prices of budget are not; give budget.tokens or budget.documents instead, and set this to 0"
            )


def _teacher_without_work(reason: bool, teacher_model: str) -> Iterator[str]:
    if teacher_model and not reason:
        yield (
            f"endpoint.teacher_model: is {teacher_model!r}, but extraction.reason is false, so that it would be asked "
            "nothing; give extraction.reason=true too, or leave it out"
        )


def _no_length_between(min_chars: int, max_chars: int) -> Iterator[str]:
    if min_chars > max_chars:
        yield f"documents.min_chars: is {min_chars}, above documents.max_chars {max_chars}; lower it"


def _no_regular_expression(patterns: tuple[str, ...]) -> Iterator[str]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"quality.blocked_sources: {pattern!r} is no regular expression ({error}); correct it"


def _no_language_code(languages: tuple[str, ...]) -> Iterator[str]:
    for code in languages:
        if not re.fullmatch("[a-z]{2}", code):
            yield (
                f"quality.languages: has {code!r}, allowed: codes of two letters (ISO 639-1); "
                "give the language's code, such as en for English"
            )


def _no_words_between(short_words: int, ngram_words: int) -> Iterator[str]:
    if short_words > ngram_words:
        yield (f"decontaminate.short_words: is {short_words}, above decontaminate.ngram_words {ngram_words}; lower it")


def _two_of_one_name(benchmarks: Mapping[str, str], held_out: str) -> Iterator[str]:
    if held_out and benchmarks.get("held_out", held_out) != held_out:
        yield (
            f"decontaminate.benchmarks: calls {benchmarks['held_out']!r} held_out, which is the name of "
            f"reference.held_out {held_out!r}; give the benchmark another name"
        )


def _root_is_no_folder(root: str) -> Iterator[str]:
    if "://" in root:
        yield (
            f"storage.root: is {root!r}, allowed: a folder that driver and executors share; give a mounted file "
            "system or /Volumes/...; tables alone may lie elsewhere, in storage.schema"
        )


def _no_servers(url: str, others: Mapping[str, float], refine_url: str, teacher_url: str) -> Iterator[str]:
    addresses = {"url": url, "others": "".join(others), "refine_url": refine_url, "teacher_url": teacher_url}
    for name in (name for name, address in addresses.items() if "@" in address):
        yield (
            f"endpoint.{name}: holds a user or a key before @, which tables and logs "
            "would show; give the key by the environment variable of endpoint.key_env or by endpoint.key_secret"
        )
    for other, weight in others.items():
        if other.rstrip("/") == url.rstrip("/"):
            yield f"endpoint.others: has {other}, which is endpoint.url; leave it out"
        if weight <= 0:
            yield f"endpoint.others: gives {other} the weight {weight:g}, allowed: above 0; leave it out, or raise it"


def _no_request_for_either(in_flight: int, pipeline_depth: int) -> Iterator[str]:
    if in_flight < pipeline_depth:
        yield (
            f"endpoint.in_flight: is {in_flight}, below bandit.pipeline_depth {pipeline_depth}, of whose iterations "
            "each needs one; lower bandit.pipeline_depth to 1, or raise it"
        )


#: owners and folders of storage.root that are no run's
_TAKEN = frozenset({"corpus", "tables", "spool", "locks", "encoders", "checkpoints", "decontaminate", "mlartifacts"})


def _name_is_no_file_name(run_name: str) -> Iterator[str]:
    if not run_name.replace("-", "").replace("_", "").isalnum():
        yield f"run_name: is {run_name!r}, allowed: letters, digits, - and _; give another, such as run-1"
    if run_name.lower() in _TAKEN or run_name.startswith("warm_up-"):
        yield f"run_name: is {run_name!r}, which names something else under storage.root; give another, such as run-1"


#: paths of the settings that a rule looks at, in the order of its arguments
_RULES: dict[tuple[str, ...], Callable[..., Iterator[str]]] = {
    ("budget.documents", "budget.fraction", "budget.tokens", "budget.money"): _budget_of_nothing,
    ("budget.money", "budget.prompt_price", "budget.completion_price"): _money_without_prices,
    (
        "budget.money",
        "endpoint.model",
        "extraction.refine",
        "endpoint.refine_model",
        "extraction.reason",
        "endpoint.teacher_model",
    ): _money_of_two_models,
    ("extraction.reason", "endpoint.teacher_model"): _teacher_without_work,
    ("documents.min_chars", "documents.max_chars"): _no_length_between,
    ("quality.blocked_sources",): _no_regular_expression,
    ("quality.languages",): _no_language_code,
    ("decontaminate.short_words", "decontaminate.ngram_words"): _no_words_between,
    ("decontaminate.benchmarks", "reference.held_out"): _two_of_one_name,
    ("storage.root",): _root_is_no_folder,
    ("endpoint.url", "endpoint.others", "endpoint.refine_url", "endpoint.teacher_url"): _no_servers,
    ("endpoint.in_flight", "bandit.pipeline_depth"): _no_request_for_either,
    ("run_name",): _name_is_no_file_name,
}

"""Prompts from conf/prompts/DOMAIN.yml."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

from equal.core.qa import QA, Example, Prompt


def load_prompts(
    domain: str, *, answer: str, refine: bool, structured: bool, max_pairs: int, reason: bool = False
) -> tuple[Prompt, Prompt | None, Prompt | None]:
    """The prompts of the passes.

    Args:
        domain: general | math | code, a file of conf/prompts.
        answer: written | quoted; which extract prompt.
        refine: whether there is a second pass, that mends pairs.
        structured: replies as JSON by schema, otherwise plain text.
        max_pairs: pairs a passage.
        reason: whether there is a last pass, that works out answers step by step.

    Returns:
        (extract, refine, reason), None for a pass that there is not.
    """
    tree = yaml.safe_load((resources.files("equal.conf") / "prompts" / f"{domain}.yml").read_text(encoding="utf-8"))

    def prompt(kind: str) -> Prompt:
        section = tree[kind]
        return Prompt(
            name=f"{domain}/{kind}",
            kind=kind,
            system=section["system"],
            request=section["request"],
            examples=tuple(_example(item) for item in section["examples"]),
            structured=structured,
            max_pairs=max_pairs,
            question_chars=section["question_chars"],
            answer_chars=section["answer_chars"],
        )

    return prompt(answer), prompt("refine") if refine else None, prompt("reason") if reason else None


def _example(item: dict[str, Any]) -> Example:
    return Example(item["passage"], _pairs(item["pairs"]), _pairs(item.get("drafts", [])))


def _pairs(items: list[dict[str, Any]]) -> tuple[QA, ...]:
    return tuple(QA(i["question"], i.get("answer", ""), i.get("number", 0)) for i in items)

"""The settings of a run: one frozen section a stage, defaults in conf/base.yml, all errors at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from equal.contradictions import contradictions
from equal.errors import ConfigError
from equal.settings import build, fingerprint, flatten, parse_override, read_layer, setting


@dataclass(frozen=True)
class Storage:
    root: str = setting(science=False)
    schema: str = setting(science=False)


@dataclass(frozen=True)
class Spark:
    partitions: int = setting(low=1, science=False)
    loader: str = setting(choices=("files", "auto_loader"), science=False)


@dataclass(frozen=True)
class Documents:
    path: str = setting(science=False)
    withdrawn: str = setting(science=False)
    format: str = setting(choices=("jsonl", "parquet", "text"))
    id_field: str = setting()
    text_field: str = setting()
    min_chars: int = setting(low=1)
    max_chars: int = setting(low=1)
    max_files_per_trigger: int = setting(low=1, science=False)
    markup_patterns: tuple[str, ...] = setting()


@dataclass(frozen=True)
class Reference:
    guide: str = setting(science=False)
    held_out: str = setting(science=False)


@dataclass(frozen=True)
class Quality:
    min_words: int = setting(low=0)
    max_symbol_share: float = setting(low=0.0, high=1.0)
    max_repeated_lines: float = setting(low=0.0, high=1.0)
    max_repeated_runs: float = setting(low=0.0, high=1.0)
    languages: tuple[str, ...] = setting()
    blocked_sources: tuple[str, ...] = setting()


@dataclass(frozen=True)
class Deduplicate:
    shingle_words: int = setting(low=1, high=50)
    bands: int = setting(low=1, high=256)
    rows: int = setting(low=1, high=64)
    threshold: float = setting(low=0.05, high=1.0)


@dataclass(frozen=True)
class Decontaminate:
    benchmarks: dict[str, str] = setting(science=False)
    ngram_words: int = setting(low=3, high=50)
    short_words: int = setting(low=1, high=50)
    max_document_share: float = setting(low=0.0, high=1.0)


@dataclass(frozen=True)
class Encoder:
    model: str = setting()
    dtype: str = setting(choices=("auto", "float32", "bfloat16"))
    max_tokens: int = setting(low=8, high=32768)
    batch_size: int = setting(low=1, science=False)


@dataclass(frozen=True)
class WarmUp:
    enabled: bool = setting()
    fraction: float = setting(low=0.0, high=1.0)
    temperature: float = setting(low=0.001, high=10.0)
    learning_rate: float = setting(low=0.0, high=1.0)
    epochs: int = setting(low=1, high=100)
    batch_size: int = setting(low=2)
    max_tokens: int = setting(low=8, high=32768)
    hard_negatives: int = setting(low=0, high=16)
    held_out_share: float = setting(low=0.0, high=0.9)


@dataclass(frozen=True)
class Cluster:
    k: int = setting(low=0)
    elbow_grid: tuple[int, ...] = setting()
    fit_documents: int = setting(low=10)
    max_iterations: int = setting(low=1, high=1000)
    max_sweep_share: float = setting(low=0.0, high=1.0)


@dataclass(frozen=True)
class Endpoint:
    url: str = setting(science=False)
    others: dict[str, float] = setting(science=False)
    model: str = setting()
    refine_model: str = setting()
    refine_url: str = setting(science=False)
    teacher_model: str = setting()
    teacher_url: str = setting(science=False)
    model_parameters: int = setting(low=0, science=False)
    key_env: str = setting(science=False)
    key_secret: str = setting(science=False)
    in_flight: int = setting(low=1, high=4096, science=False)
    timeout_s: float = setting(low=1.0, science=False)
    max_attempts: int = setting(low=1, high=20, science=False)
    max_failed_share: float = setting(low=0.0, high=1.0, science=False)
    restart_wait_s: float = setting(low=0.0, science=False)

    @property
    def servers(self) -> dict[str, float]:
        """Every server's URL and its part of the requests."""
        return {self.url: 1.0, **self.others}

    @property
    def elsewhere(self) -> dict[str, dict[str, float]]:
        """The servers of a model that is not served there."""
        others = {self.refine_model: self.refine_url, self.teacher_model: self.teacher_url}
        return {model: {url: 1.0} for model, url in others.items() if model and url}


@dataclass(frozen=True)
class Extraction:
    domain: str = setting(choices=("general", "math", "code"))
    answer: str = setting(choices=("written", "quoted"))
    refine: bool = setting()
    reason: bool = setting()
    structured: bool = setting()
    temperature: float = setting(low=0.0, high=2.0)
    max_tokens: int = setting(low=8)
    max_pairs: int = setting(low=1, high=50)
    passage_chars: int = setting(low=200)
    max_passages: int = setting(low=1)
    min_answer_similarity: float = setting(low=-1.0, high=1.0)
    min_grounded_share: float = setting(low=0.0, high=1.0)


@dataclass(frozen=True)
class Bandit:
    strategy: str = setting(choices=("equal", "warm_start", "similarity", "random"))
    docs_per_pull: int = setting(low=1)
    arms_per_iteration: int = setting(low=0)
    exploration: str = setting(choices=("paper", "constant", "variance", "thompson"))
    alpha: float = setting(low=0.0)
    pipeline_depth: int = setting(low=1, high=2)


@dataclass(frozen=True)
class Transport:
    estimator: str = setting(choices=("split", "plain"))
    max_pairs: int = setting(low=4)
    splits: int = setting(low=1, high=1000)
    bootstrap: int = setting(low=0, high=10000)


@dataclass(frozen=True)
class Budget:
    documents: int = setting(low=0)
    fraction: float = setting(low=0.0, high=1.0)
    tokens: int = setting(low=0)
    money: float = setting(low=0.0)
    prompt_price: float = setting(low=0.0)
    completion_price: float = setting(low=0.0)


@dataclass(frozen=True)
class Select:
    max_pairs: int = setting(low=0)
    max_similarity: float = setting(low=0.0, high=1.0)
    export: str = setting(science=False)


@dataclass(frozen=True)
class Finetune:
    base_model: str = setting()
    method: str = setting(choices=("lora", "full"))
    epochs: float = setting(low=0.01, high=100)
    learning_rate: float = setting(low=0.0, high=1.0)
    batch_size: int = setting(low=1)
    micro_batch_size: int = setting(low=1, science=False)
    max_tokens: int = setting(low=16)
    lora_rank: int = setting(low=1, high=1024)
    lora_alpha: int = setting(low=1)


@dataclass(frozen=True)
class Evaluate:
    batch_size: int = setting(low=1, science=False)
    max_new_tokens: int = setting(low=1)
    max_items: int = setting(low=0)


@dataclass(frozen=True)
class Tracking:
    uri: str = setting(science=False)
    experiment: str = setting(science=False)


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run; conf/base.yml documents each with its unit and why."""

    run_name: str = setting(science=False)
    seed: int = setting(low=0)
    storage: Storage = setting()
    spark: Spark = setting()
    documents: Documents = setting()
    reference: Reference = setting()
    quality: Quality = setting()
    deduplicate: Deduplicate = setting()
    decontaminate: Decontaminate = setting()
    encoder: Encoder = setting()
    warm_up: WarmUp = setting()
    cluster: Cluster = setting()
    endpoint: Endpoint = setting()
    extraction: Extraction = setting()
    bandit: Bandit = setting()
    transport: Transport = setting()
    budget: Budget = setting()
    select: Select = setting()
    finetune: Finetune = setting()
    evaluate: Evaluate = setting()
    tracking: Tracking = setting()

    def __post_init__(self) -> None:
        problems = contradictions(flatten(self))
        if problems:
            raise ConfigError(problems)

    def fingerprint(self, *sections: str) -> str:
        """Hash of the science settings of the named sections, of all when none is named."""
        if not sections:
            return fingerprint(self)
        return fingerprint([getattr(self, name) for name in ("seed", *sections)])

    @property
    def sweep_share(self) -> float:
        """Of the document budget that pulling every arm once may take; all of it where no strategy has to do so."""
        return self.cluster.max_sweep_share if self.bandit.strategy == "equal" else 1.0

    @property
    def judges(self) -> dict[str, str]:
        """What no document and no pair may hold, name to path: the benchmarks, and the items that judge the result."""
        named, held_out = self.decontaminate.benchmarks, self.reference.held_out
        return {**named, "held_out": held_out} if held_out and held_out not in named.values() else named

    def document_budget(self, num_docs: int) -> int:
        """Documents that may be extracted: the smaller of `budget.documents` and `budget.fraction`; 0 is no limit."""
        limits = [self.budget.documents] if self.budget.documents else []
        if self.budget.fraction:
            limits.append(max(1, int(self.budget.fraction * num_docs)))  # a share of few documents is not "no limit"
        return min(limits, default=0)


def load(config: Path | str | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Build a RunConfig from conf/base.yml, one YAML file on top of it, and `a.b=c` overrides.

    Raises:
        ConfigError: lists every problem found in any layer, and the contradictions between all that have none.
    """
    problems: list[str] = []
    base = Path(str(resources.files("equal.conf") / "base.yml"))
    layers = [read_layer(path, problems) for path in ([base] if config is None else [base, config])]
    layers += [parse_override(text, problems) for text in overrides]
    return build(RunConfig, layers, problems, contradictions)


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """For `--config FILE` and any number of `--set section.key=value`, which all jobs share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="YAML laid over conf/base.yml, such as conf/demo.yml")
    parser.add_argument("--set", metavar="A.B=C", action="append", default=[], help="override one setting; repeatable")
    return parser


def parse_arguments(argv: Sequence[str] | None, description: str | None) -> RunConfig:
    """The configuration that the two name."""
    arguments = argument_parser(description).parse_args(argv)
    return load(arguments.config, arguments.set)

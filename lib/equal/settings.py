"""Typed, layered YAML: every problem of every layer is collected before one ConfigError is raised.

Knows nothing of EQUAL. A section is a frozen dataclass whose fields are declared with `setting(...)`;
values come from YAML layers and `a.b=c` overrides, never from Python defaults, so that a default
is written once, in conf/base.yml.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from equal.errors import ConfigError

T = TypeVar("T")
Tree = dict[str, Any]


def setting(
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    science: bool = True,
) -> Any:
    """Declare a field: its closed range or choices, and whether results depend on it (`science`)."""
    return dataclasses.field(metadata={"low": low, "high": high, "choices": choices, "science": science})


def read_layer(path: Path | str) -> Tree:
    """Read one YAML file as a tree of settings.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError([f"--config {path}: no such file; give the path of a YAML file such as conf/demo.yml"])
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"--config {path}: not readable as YAML ({' '.join(str(error).split())})"]) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError([f"--config {path}: the top level is a {type(tree).__name__}, expected sections"])
    return tree


def parse_override(text: str) -> Tree:
    """Turn `bandit.docs_per_pull=5` into {"bandit": {"docs_per_pull": 5}}; the value is read as YAML.

    Raises:
        ConfigError: there is no `=` or no key, or the value is not YAML.
    """
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError([f"--set {text!r}: expected section.key=value, such as bandit.docs_per_pull=5"])
    try:
        tree: Any = yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError([f"--set {text!r}: the value is not YAML ({reason}); put it in quotes"]) from error
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return tree


def merge(base: Tree, over: Tree, free: frozenset[str] = frozenset(), prefix: str = "") -> Tree:
    """Lay `over` on `base`; mappings merge, all else replaces. Paths in `free` are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and path not in free:
            merged[key] = merge(merged[key], value, free, f"{path}.")
        else:
            merged[key] = value
    return merged


def build(cls: type[T], tree: Tree) -> T:
    """Build the dataclass `cls` from a tree.

    Raises:
        ConfigError: lists every unknown, missing, mistyped or out-of-range key at once.
    """
    problems: list[str] = []
    built = _build(cls, tree, "", problems)
    if problems:
        raise ConfigError(problems)
    return typing.cast(T, built)


def fingerprint(value: Any) -> str:
    """Hash (16 hex digits) of the science settings of a section or of a tuple of sections."""
    canonical = json.dumps(_science(value), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def _science(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if f.metadata.get("science", True)]
        return {f.name: _science(getattr(value, f.name)) for f in fields}
    if isinstance(value, (list, tuple)):
        return [_science(item) for item in value]
    return value


def _build(cls: Any, tree: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(tree, dict):
        problems.append(f"{prefix.rstrip('.')}: is {tree!r}, expected a section with keys")
        return None
    fields = {f.name: f for f in dataclasses.fields(cls)}
    types = typing.get_type_hints(cls)
    for key in tree:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"allowed here: {', '.join(fields)}"
            problems.append(f"{prefix}{key}: unknown key; {hint}")
    values: Tree = {}
    for name, field in fields.items():
        path = f"{prefix}{name}"
        if name not in tree:
            problems.append(f"{path}: missing; conf/base.yml gives every default")
        elif dataclasses.is_dataclass(types[name]):
            values[name] = _build(types[name], tree[name], f"{path}.", problems)
        else:
            values[name] = _check(tree[name], types[name], field.metadata, path, problems)
    return None if problems else cls(**values)


def _check(value: Any, kind: Any, meta: Any, path: str, problems: list[str]) -> Any:
    converted, expected = _convert(value, kind)
    if converted is None:
        problems.append(f"{path}: is {value!r} ({type(value).__name__}), expected {expected}")
        return None
    choices, low, high = meta.get("choices"), meta.get("low"), meta.get("high")
    if choices and converted not in choices:
        near = difflib.get_close_matches(str(converted), choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        problems.append(f"{path}: is {value!r}, allowed: {', '.join(choices)}{hint}")
    if low is not None and converted < low:
        problems.append(f"{path}: is {value!r}, must be at least {low:g}")
    if high is not None and converted > high:
        problems.append(f"{path}: is {value!r}, must be at most {high:g}")
    return converted


def _convert(value: Any, kind: Any) -> tuple[Any, str]:
    """Return (value as `kind` or None, name of what was expected); bool is never taken for a number."""
    origin = typing.get_origin(kind)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        items = [_convert(v, item)[0] for v in value] if isinstance(value, (list, tuple)) else [None]
        return (None if None in items else tuple(items)), f"a list of {item.__name__}"
    if origin is dict:
        good = isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
        return (value if good else None), "a mapping of names to strings"
    if kind is bool:
        return (value if isinstance(value, bool) else None), "true or false"
    if kind is int:
        return (value if isinstance(value, int) and not isinstance(value, bool) else None), "a whole number"
    if kind is float:
        return _to_float(value), "a number"
    return (value if isinstance(value, str) else None), "text"


def _to_float(value: Any) -> float | None:
    """Numbers, and text such as `1e-5`, which YAML 1.1 does not read as a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None

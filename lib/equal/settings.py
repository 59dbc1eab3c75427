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
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from equal.errors import ConfigError

T = TypeVar("T")
Tree = dict[str, Any]
#: path of a setting to its value, such as {"seed": 17, "budget.money": 0.0}
Values = dict[str, Any]
#: a longer value is not repeated in a remedy
_SHOWN_CHARS = 40


class _Unknown:
    def __repr__(self) -> str:
        return "?"


#: in place of a value, a section or a layer that is not readable or not allowed; its problem is already listed
UNKNOWN: Any = _Unknown()


def setting(
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    science: bool = True,
) -> Any:
    """Declare a field: its closed range or choices, and whether results depend on it (`science`)."""
    return dataclasses.field(metadata={"low": low, "high": high, "choices": choices, "science": science})


def read_layer(path: Path | str, problems: list[str]) -> Tree:
    """Read one YAML file as a tree of settings.

    Returns:
        The tree; UNKNOWN, and one more of `problems`, when the file is missing, not YAML, or not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        problems.append(f"--config {path}: no such file; give the path of a YAML file such as conf/demo.yml")
        return UNKNOWN
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:  # ValueError: not UTF-8, or a date such as 2024-13-01
        problems.append(f"--config {path}: not readable as YAML ({_one_line(error)}); correct the file")
        return UNKNOWN
    if tree is not None and not isinstance(tree, dict):
        found = f"the top level is a {type(tree).__name__}, expected sections"
        problems.append(f"--config {path}: {found}; begin with the name of one, such as bandit:")
        return UNKNOWN
    return tree or {}


def parse_override(text: str, problems: list[str]) -> Tree:
    """Turn `bandit.docs_per_pull=5` into {"bandit": {"docs_per_pull": 5}}; the value is read as YAML.

    Returns:
        The tree; with UNKNOWN as the value, and one more of `problems`, when there is no `=` or the value is not YAML;
        UNKNOWN alone when there is no key.
    """
    key, separator, value = text.partition("=")
    tree = UNKNOWN
    if not separator or not key.strip():
        problems.append(f"--set {text!r}: expected section.key=value, such as bandit.docs_per_pull=5")
    else:
        try:
            tree = yaml.safe_load(value) if value else ""
        except (yaml.YAMLError, ValueError) as error:
            problems.append(f"--set {text!r}: the value is not YAML ({_one_line(error)}); put it in quotes")
    for part in reversed(key.strip().split(".") if key.strip() else ()):
        tree = {part: tree}
    return tree


def build(
    cls: type[T], layers: Iterable[Tree], problems: Iterable[str], check: Callable[[Mapping[str, Any]], list[str]]
) -> T:
    """Build the dataclass `cls` from layers of settings, of which a later one replaces values of an earlier one.

    Each layer is checked by itself, so that a later one hides no mistake.

    Args:
        cls: its fields are settings and sections.
        layers: trees, as `read_layer` and `parse_override` return them.
        problems: those met while the layers were read.
        check: tells what is wrong between settings; it is given the values that are known.

    Raises:
        ConfigError: lists `problems`, every unknown, missing, mistyped or out-of-range key, and what `check` tells.
    """
    found = list(problems)
    values: Values = {}
    for tree in layers:
        _lay(cls, tree, "", values, found)
    found += [f"{path}: missing; give it as conf/base.yml does" for path in _paths(cls, "") if path not in values]
    if found:
        known = {path: value for path, value in values.items() if value is not UNKNOWN}
        raise ConfigError([*found, *check(known)])
    return typing.cast(T, _assemble(cls, values, ""))


def flatten(section: Any, prefix: str = "") -> Values:
    """The value of every setting of a section by its path."""
    values: Values = {}
    for name, value in vars(section).items():
        path = f"{prefix}{name}"
        values |= flatten(value, f"{path}.") if dataclasses.is_dataclass(value) else {path: value}
    return values


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _paths(kind: Any, path: str) -> list[str]:
    """The settings at a path: all those of a section, or the one setting."""
    if not dataclasses.is_dataclass(kind):
        return [path]
    prefix = f"{path}." if path else ""
    return [leaf for name, inner in typing.get_type_hints(kind).items() for leaf in _paths(inner, f"{prefix}{name}")]


def _lay(cls: Any, tree: Any, path: str, values: Values, problems: list[str]) -> None:
    """Lay what one layer gives for the section at `path` over `values`."""
    kinds = typing.get_type_hints(cls)
    if not isinstance(tree, dict):
        if tree is not UNKNOWN:
            problems.append(f"{path}: is {tree!r}, expected a section with keys; give some of {', '.join(kinds)}")
        values |= dict.fromkeys(_paths(cls, path), UNKNOWN)
        return
    prefix = f"{path}." if path else ""
    metadata = {f.name: f.metadata for f in dataclasses.fields(cls)}
    for key, value in tree.items():
        at = f"{prefix}{key}"
        if key not in kinds:
            near = difflib.get_close_matches(str(key), kinds, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"allowed here: {', '.join(kinds)}; use one of them"
            problems.append(f"{at}: unknown key; {hint}")
            for name in near:  # what was meant may be this one, so its value is not known
                values |= dict.fromkeys(_paths(kinds[name], f"{prefix}{name}"), UNKNOWN)
        elif dataclasses.is_dataclass(kinds[key]):
            _lay(kinds[key], value, at, values, problems)
        elif value is UNKNOWN:
            values[at] = UNKNOWN
        else:
            values[at] = _check(value, kinds[key], metadata[key], at, values.get(at, UNKNOWN), problems)


def _check(value: Any, kind: Any, meta: Any, path: str, below: Any, problems: list[str]) -> Any:
    """The value as `kind`; UNKNOWN if it is not allowed. `below` is the value that it was to replace."""
    converted, expected = _convert(value, kind)
    choices, low, high = meta.get("choices"), meta.get("low"), meta.get("high")
    remedy = _remedy(below)
    if converted is None:
        wrong = f"({type(value).__name__}), expected {expected}"
    elif choices and converted not in choices:
        wrong = f"allowed: {', '.join(choices)}"
        near = difflib.get_close_matches(str(converted), choices, n=1)
        remedy = f"did you mean {near[0]}?" if near else remedy
    elif low is not None and converted < low:
        wrong = f"must be at least {low:g}"
    elif high is not None and converted > high:
        wrong = f"must be at most {high:g}"
    else:
        return converted
    problems.append(f"{path}: is {value!r}{' ' if converted is None else ', '}{wrong}; {remedy}")
    return UNKNOWN


def _remedy(below: Any) -> str:
    shown = "" if below is UNKNOWN else json.dumps(below, ensure_ascii=False)
    return f"correct it, or leave it out for {shown}" if 0 < len(shown) <= _SHOWN_CHARS else "correct it"


def _assemble(cls: Any, values: Values, prefix: str) -> Any:
    def value(name: str, kind: Any) -> Any:
        path = f"{prefix}{name}"
        return _assemble(kind, values, f"{path}.") if dataclasses.is_dataclass(kind) else values[path]

    return cls(**{name: value(name, kind) for name, kind in typing.get_type_hints(cls).items()})


def _convert(value: Any, kind: Any) -> tuple[Any, str]:
    """Return (value as `kind` or None, name of what was expected); bool is never taken for a number."""
    origin = typing.get_origin(kind)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        items = [_convert(v, item)[0] for v in value] if isinstance(value, (list, tuple)) else [None]
        return (None if None in items else tuple(items)), f"a list of {item.__name__}"
    if origin is dict:
        item = typing.get_args(kind)[1]
        found = {k: _convert(v, item)[0] for k, v in value.items()} if isinstance(value, dict) else {None: None}
        good = all(isinstance(k, str) and v is not None for k, v in found.items())
        return (found if good else None), f"a mapping of names to {'strings' if item is str else 'numbers'}"
    if kind is bool:
        return (value if isinstance(value, bool) else None), "true or false"
    if kind is int:
        return (value if isinstance(value, int) and not isinstance(value, bool) else None), "a whole number"
    if kind is float:
        return _to_float(value), "a number that is finite"
    return (value if isinstance(value, str) else None), "text"


def _to_float(value: Any) -> float | None:
    """Numbers, and text such as `1e-5`, which YAML 1.1 does not read as one; not nan, which is in every range."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

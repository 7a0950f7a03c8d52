"""Strict YAML: plain data with the line each key stands on, and nothing said twice."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .._errors import InputError

# YAML 1.1, which PyYAML reads, takes 1e-4 for a string: it wants a point. People who write it mean the number.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def load(text: str, name: str) -> tuple[Any, dict[tuple[str | int, ...], int]]:
    """Read one YAML document.

    Args:
        text: the document.
        name: how messages call it.

    Returns:
        The data, and the line (from 1) of every key and list item by its path, the document's own being ``()``.

    Raises:
        InputError: it is no YAML, has more than one document, says a key twice, or holds what is not plain data.
    """
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{name}: the file is empty")
        return _plain(loader, node, (), lines, name), lines
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        what = getattr(e, "problem", None) or str(e)
        raise InputError(f"{where}: not YAML: {' '.join(what.split())}") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply") from None
    except ValueError as e:  # such as the 31st of February
        if isinstance(e, InputError):
            raise
        raise InputError(f"{name}: not YAML: {' '.join(str(e).split())}") from None


def _plain(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    path: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    name: str,
) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(path) > 8:
        raise InputError(f"{name}:{line}: nested too deeply")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            key = loader.construct_object(key_node)
            if not isinstance(key, str):
                raise InputError(f"{name}:{at}: the key {key!r} is not a word")
            if key in mapping:
                raise InputError(f"{name}:{at}: {key} is there twice; the first is on line {lines[(*path, key)]}")
            lines[(*path, key)] = at
            mapping[key] = _plain(loader, value_node, (*path, key), lines, name)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*path, i), lines, name) for i, item in enumerate(node.value)]
    value = loader.construct_object(node)
    if isinstance(value, str) and node.style is None and _NUMBER.fullmatch(value):
        return float(value)
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise InputError(
            f"{name}:{line}: {node.value!r} is a {type(value).__name__}, not a number, word or truth value"
        )
    return value

"""Arguments that are looked at where they come in, so that what is wrong with one is said there, in one line."""

from __future__ import annotations

import json
import math
import numbers
import os
import reprlib
from typing import Any

import numpy as np

from ._errors import InputError

MOST_SECONDS = 1e6  # of a time-out: eleven days; what waits for longer waits for ever
MOST_WEIGHT = 1e15  # beyond, gradients of ordinary size leave float32
MOST_SETTINGS = 1 << 16  # characters of JSON


_short = reprlib.Repr()
_short.maxother = _short.maxstring = _short.maxlong = 60


def brief(value: Any) -> str:
    """Return what to call a value in a message: its repr, shortened, in one line."""
    try:
        return " ".join(_short.repr(value).split())
    except ValueError:  # Python refuses to write very long integers
        return f"a very long {type(value).__name__}"


def seconds(value: Any, name: str) -> float:
    """Return a time-out in seconds, above 0. Raises `InputError`."""
    number = _number(value)
    if not 0 < number <= MOST_SECONDS:
        raise InputError(
            f"specalign: {name} is {brief(value)}; give a positive number of seconds, at most {MOST_SECONDS:g}"
        )
    return number


def weight(value: Any, name: str = "weight") -> float:
    """Return a factor of a penalty, a tensor of one element included. Raises `InputError`."""
    if getattr(value, "requires_grad", False):
        raise InputError(
            f"specalign: {name} is a tensor that wants a gradient, and none flows to it; give {name}.detach()"
        )
    number = _number(value)
    if not abs(number) <= MOST_WEIGHT:
        raise InputError(f"specalign: {name} is {brief(value)}; give a finite number, at most {MOST_WEIGHT:g} in size")
    return number


def whole(value: Any, name: str, least: int) -> int:
    """Return a whole number of at least `least`. Raises `InputError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"specalign: {name} is {brief(value)}; give a whole number of {least} or more")
    return int(value)


def isolation(value: Any) -> str:
    """Return where the engine is to run. Raises `InputError`."""
    if not isinstance(value, str) or value not in ("process", "none"):
        raise InputError(f'specalign: isolation is {brief(value)}; give "process" or "none"')
    return value


def path(value: Any, name: str) -> str:
    """Return an absolute path. Raises `InputError`."""
    try:
        text = os.fsdecode(value)
    except TypeError:
        text = ""
    if not text or "\0" in text:
        raise InputError(f"specalign: {name} is {brief(value)}; give the path of a file")
    return os.path.abspath(text)


def settings(given: dict[str, Any]) -> str:
    """Return the settings of a session as JSON, NumPy's numbers included. Raises `InputError`.

    What they mean, and which there are, is the sidecar's affair.
    """
    members = []
    for name, value in given.items():
        try:
            members.append(f"{json.dumps(name)}: {json.dumps(value, default=_plain, allow_nan=False)}")
        except (TypeError, ValueError, RecursionError):
            raise InputError(
                f"specalign: settings: {name} is {brief(value)}; give words, finite numbers, true or false, "
                "and lists or dictionaries of these"
            ) from None
    text = "{" + ", ".join(members) + "}"
    if len(text) > MOST_SETTINGS:
        raise InputError(f"specalign: settings of {len(text)} characters; at most {MOST_SETTINGS} are read")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        return value.item()
    raise TypeError


def _number(value: Any) -> float:
    """Return a number, NaN for what is none."""
    if not isinstance(value, numbers.Real) and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf

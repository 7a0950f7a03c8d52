"""Reads single settings, and says where one is wrong."""

from __future__ import annotations

import math
import os
from typing import Any

from .. import _errors
from ._schedule import KINDS, Schedule
from ._yaml import Path, Places

# Of the penalty; the sidecar judges their values, and knows no others.
PENALTY = (
    "kernel", "student_kernel", "reference_kernel", "sigma", "student_sigma", "reference_sigma", "approximation",
    "num_features", "seed", "objective", "k", "p", "temperature", "terms", "solver", "tolerance", "center", "eta",
    "fast", "threads", "device",
)  # fmt: skip
_TERM = ("objective", "weight", "k", "p", "temperature")
_SCHEDULE = ("kind", "warmup", "steps", "final")
_REFERENCES = ("store", "live")
_WANTED = (
    "give the folder that `python -m specalign.openclip features` wrote, {live: MODEL} for a model that sees each "
    "batch's own images, distill for OpenCLIP's teacher, or a list of these"
)


class Reader:
    """Takes values out of mappings; its errors have file, line and column."""

    def __init__(self, path: str, places: Places) -> None:
        """`places` are those of the file's keys; see `_yaml.load`."""
        self._path = path
        self._places = places

    def wrong(self, at: Path, message: str) -> _errors.InputError:
        """Return an error of what stands at `at`."""
        return _errors.InputError(f"{where(self._path, self._places, at)}: {message}")

    def known(self, data: dict[str, Any], names: tuple[str, ...], at: Path) -> None:
        """Raise `InputError` where `data` has a key that is not among `names`."""
        for key in data:
            if key not in names:
                near = _near(key, names)
                hint = f"; did you mean {near}?" if near else f"; known are {', '.join(sorted(names))}"
                raise self.wrong((*at, key), f"there is no setting {key}{hint}")

    def number(self, data: dict[str, Any], at: Path, default: float) -> float:
        """Return a number of 0 or more."""
        value = data.get(str(at[-1]))
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise self.wrong(at, f"{at[-1]} is {value!r}; give a number of 0 or more")
        return float(value)

    def whole(self, data: dict[str, Any], at: Path, default: int, *, low: int) -> int:
        """Return a whole number of `low` or more."""
        value = data.get(str(at[-1]))
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.wrong(at, f"{at[-1]} is {value!r}; give a whole number of {low} or more")
        return value

    def word(self, data: dict[str, Any], at: Path, words: tuple[str, ...]) -> str:
        """Return one of `words`, the first by default."""
        value = data.get(str(at[-1]))
        if value is None:
            return words[0]
        if value not in words:
            raise self.wrong(at, f"{at[-1]} is {value!r}; give {' or '.join(words)}")
        return str(value)

    def terms(self, value: Any, at: Path) -> None:
        """Look whether `value` is a list of mappings with the keys of a term; the sidecar judges their values."""
        if value is None:
            return
        if not isinstance(value, list) or not value:
            raise self.wrong(
                at, "terms is no list of any; give one of mappings: - {objective: ky_fan, k: 30, weight: 1}"
            )
        for i, term in enumerate(value):
            if not isinstance(term, dict):
                raise self.wrong((*at, i), "a term is a mapping: {objective: ky_fan, k: 30, weight: 1}")
            self.known(term, _TERM, (*at, i))

    def sides(self, data: dict[str, Any], at: Path) -> tuple[str, ...]:
        """Return the sides that ``image``, ``text`` or ``both`` stands for."""
        word = self.word(data, at, ("image", "text", "both"))
        return ("image", "text") if word == "both" else (word,)

    def schedule(self, value: Any) -> Schedule:
        """Return a schedule."""
        if value is None:
            return Schedule()
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, dict):
            raise self.wrong(("schedule",), f"schedule is {value!r}; give {', '.join(KINDS)}, or a mapping with kind")
        at = ("schedule",)
        self.known(value, _SCHEDULE, at)
        kind = self.word(value, (*at, "kind"), KINDS)
        warmup = self.whole(value, (*at, "warmup"), 0, low=0)
        steps = value.get("steps")
        if kind == "warmup" and warmup == 0:
            raise self.wrong(at, "a warmup schedule needs its steps: {kind: warmup, warmup: 500}")
        if kind == "constant" and len(value) > 1:
            raise self.wrong(at, "a constant schedule has nothing else to set")
        if kind != "cosine" and (steps is not None or value.get("final") is not None):
            raise self.wrong(at, f"steps and final belong to a cosine schedule, not to {kind}")
        if steps is not None and self.whole(value, (*at, "steps"), 0, low=1) <= warmup:
            raise self.wrong((*at, "steps"), f"the cosine ends at step {steps}, within the warm-up of {warmup}")
        return Schedule(kind, warmup, steps, self.number(value, (*at, "final"), 0.0))

    def reference(self, value: Any, at: Path) -> tuple[str, str]:
        """Return kind and name of a reference."""
        if value == "distill":
            return "distill", ""
        if isinstance(value, str) and value:
            return "store", os.path.expanduser(value)
        if isinstance(value, dict):
            self.known(value, _REFERENCES, at)
            if len(value) == 1:
                ((kind, name),) = value.items()
                if isinstance(name, str) and name:
                    return kind, os.path.expanduser(name) if kind == "store" else name
        raise self.wrong(at if at in self._places else (), f"reference is missing: {_WANTED}")


def where(path: str, places: Places, at: Path) -> str:
    """Say where a setting stands: file, line and column, or the command line."""
    if not at:
        return path
    line, column = places.get(at, places.get(at[:1], (0, 0)))
    return f"{path}:{line}:{column}" if line else f"--set {at[0]}"


def _near(word: str, names: tuple[str, ...]) -> str | None:
    import difflib

    close = difflib.get_close_matches(word.replace("-", "_"), names, 1, 0.7)
    return close[0] if close else None

"""The settings of an aligned run: ``align.yaml``."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _errors
from . import _yaml
from ._schedule import KINDS, Schedule

# Of the penalty; the sidecar judges their values, and knows no others.
PENALTY = (
    "kernel", "student_kernel", "reference_kernel", "sigma", "student_sigma", "reference_sigma", "approximation",
    "num_features", "seed", "objective", "k", "p", "temperature", "terms", "solver", "tolerance", "center", "eta",
    "threads", "device",
)  # fmt: skip
RUN = ("weight", "schedule", "reference", "scope", "grad_scale", "max_failures")
_SCHEDULE = ("kind", "warmup", "steps", "final")


@dataclass(frozen=True)
class Config:
    """What an aligned run is asked to do.

    Attributes:
        path: the file, for messages.
        penalty: the settings of `specalign.Sidecar.session`.
        weight: of the penalty in the loss; 0 only watches it.
        schedule: of the weight.
        reference: the path of a store of features, or None.
        live: the model whose features are computed from each batch's own images, or None.
        scope: ``global``, the whole batch, or ``local``, each rank its own; one rank has no difference.
        grad_scale: ``exact`` or ``match``; one rank has no difference.
        max_failures: failed steps in a row that end the run.
        lines: the line of each key, for messages.
    """

    path: str
    penalty: dict[str, Any]
    weight: float = 1.0
    schedule: Schedule = Schedule()
    reference: str | None = None
    live: str | None = None
    scope: str = "global"
    grad_scale: str = "exact"
    max_failures: int = 10
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict, repr=False)

    def error(self, message: str) -> _errors.InputError:
        """Return an error of the penalty's settings, with the line of the setting that it speaks of."""
        message = message.removeprefix("align: ").removeprefix("settings: ")
        spoken = next((w for w in re.findall(r"[a-z_]+", message) if (w,) in self.lines), None)
        return _errors.InputError(f"{_where(self.path, self.lines, (spoken,) if spoken else ())}: {message}")


def load(path: str, overrides: list[str]) -> Config:
    """Read `path`, with `overrides` of the form ``NAME=VALUE`` in place of what it says.

    Raises:
        InputError: the file cannot be read, or holds what it should not; the message has file and line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(1 << 20)
    except OSError as e:
        raise _errors.InputError(f"{path}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise _errors.InputError(f"{path}: not UTF-8 text: {e.reason} at byte {e.start}") from None
    return parse(text, path, overrides)


def parse(text: str, path: str, overrides: Sequence[str] = ()) -> Config:
    """Read settings from `text`; `path` is for messages. Arguments and errors as for `load`."""
    data, lines = _yaml.load(text, path)
    if not isinstance(data, dict):
        raise _errors.InputError(f"{path}:{lines[()]}: give settings as `name: value` lines")
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or not name:
            raise _errors.InputError(f"specalign: --set {override}: give NAME=VALUE")
        data[name] = _yaml.load(value, f"--set {override}")[0]
        lines = {at: line for at, line in lines.items() if at[:1] != (name,)}
        lines[(name,)] = 0  # the command line
    reader = _Reader(path, lines)
    reader.known(data, (*RUN, *PENALTY), ())
    store, live = reader.reference(data)
    return Config(
        path=path,
        penalty={k: data[k] for k in PENALTY if data.get(k) is not None},
        weight=reader.number(data, ("weight",), 1.0, low=0.0),
        schedule=reader.schedule(data.get("schedule")),
        reference=store,
        live=live,
        scope=reader.word(data, ("scope",), ("global", "local")),
        grad_scale=reader.word(data, ("grad_scale",), ("exact", "match")),
        max_failures=reader.whole(data, ("max_failures",), 10, low=1),
        lines=lines,
    )


class _Reader:
    """Reads values, and says where one is wrong."""

    def __init__(self, path: str, lines: dict[tuple[str | int, ...], int]) -> None:
        self._path = path
        self._lines = lines

    def wrong(self, at: tuple[str | int, ...], message: str) -> _errors.InputError:
        return _errors.InputError(f"{_where(self._path, self._lines, at)}: {message}")

    def known(self, data: dict[str, Any], names: tuple[str, ...], at: tuple[str | int, ...]) -> None:
        for key in data:
            if key not in names:
                near = _near(key, names)
                hint = f"; did you mean {near}?" if near else f"; known are {', '.join(sorted(names))}"
                raise self.wrong((*at, key), f"there is no setting {key}{hint}")

    def number(self, data: dict[str, Any], at: tuple[str, ...], default: float, *, low: float) -> float:
        value = data.get(at[-1])
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < low:
            raise self.wrong(at, f"{at[-1]} is {value!r}; give a number of {low:g} or more")
        return float(value)

    def whole(self, data: dict[str, Any], at: tuple[str, ...], default: int, *, low: int) -> int:
        value = data.get(at[-1])
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.wrong(at, f"{at[-1]} is {value!r}; give a whole number of {low} or more")
        return value

    def word(self, data: dict[str, Any], at: tuple[str, ...], words: tuple[str, ...]) -> str:
        value = data.get(at[-1])
        if value is None:
            return words[0]
        if value not in words:
            raise self.wrong(at, f"{at[-1]} is {value!r}; give {' or '.join(words)}")
        return str(value)

    def schedule(self, value: Any) -> Schedule:
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
        return Schedule(kind, warmup, steps, self.number(value, (*at, "final"), 0.0, low=0.0))

    def reference(self, data: dict[str, Any]) -> tuple[str | None, str | None]:
        value = data.get("reference")
        if isinstance(value, str) and value:
            return os.path.expanduser(value), None
        if isinstance(value, dict):
            self.known(value, ("live",), ("reference",))
            if isinstance(value.get("live"), str):
                return None, value["live"]
        at: tuple[str | int, ...] = ("reference",) if "reference" in data else ()
        raise self.wrong(
            at,
            "reference is missing: give the folder that `python -m specalign.openclip features` wrote, "
            "or {live: MODEL} for a model that sees each batch's own images",
        )


def _where(path: str, lines: dict[tuple[str | int, ...], int], at: tuple[str | int, ...]) -> str:
    if not at:
        return path
    line = lines.get(at, lines.get(at[:1], 0))
    return f"{path}:{line}" if line else f"--set {at[0]}"


def _near(word: str, names: tuple[str, ...]) -> str | None:
    import difflib

    close = difflib.get_close_matches(word.replace("-", "_"), names, 1, 0.7)
    return close[0] if close else None

"""The settings of an aligned run: ``align.yaml``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _errors
from . import _yaml
from ._reader import PENALTY, Reader, where
from ._schedule import Schedule
from ._yaml import Path, Places

RUN = (
    "weight", "schedule", "reference", "features", "anchor", "scope", "grad_scale", "missing", "samples",
    "max_failures", "isolation",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reference, and which of the student's features are aligned with it.

    Attributes:
        kind: ``store``, ``live``, or ``distill``, OpenCLIP's own teacher.
        name: the store's folder or the model; empty for ``distill``.
        features: ``image`` or ``text``.
        weight: beside the other references' weights.
        penalty: the settings of `specalign.Sidecar.session`.
        at: where its own settings stand; ``()`` where it has none.
    """

    kind: str
    name: str
    features: str
    weight: float
    penalty: dict[str, Any]
    at: Path = ()

    def __str__(self) -> str:
        """Name it, for messages."""
        return f"{self.features} features, {self.kind} {self.name}".rstrip()


@dataclass(frozen=True)
class Ratio:
    """A weight that is found anew each step.

    Attributes:
        ratio: of the penalty's gradient norm on the features to the task loss's.
        smoothing: of both norms, as the factor of an exponential moving average: 0 holds the ratio in every step.
        max: a bound on the weight.
    """

    ratio: float
    smoothing: float = 0.0
    max: float = 1e4


@dataclass(frozen=True)
class Anchor:
    """The term that holds features near what they were when the run began.

    Attributes:
        weight: of the mean of 1 - cos(now, then).
        features: any of ``image`` and ``text``.
    """

    weight: float
    features: tuple[str, ...]


@dataclass(frozen=True)
class Samples:
    """The log of what the student still misses.

    Attributes:
        every: optimizer steps between two entries.
        groups: how many of the strongest groups.
        top: samples a group.
    """

    every: int
    groups: int
    top: int


@dataclass(frozen=True)
class Config:
    """What an aligned run is asked to do.

    Attributes:
        path: the file, for messages.
        targets: what is aligned with what.
        weight: of the penalty in the loss; 0 only watches it. None where `ratio` finds it.
        ratio: how the weight is found, or None.
        schedule: of the weight, or of the ratio.
        anchor: the anchor term, or None.
        scope: ``global``, the whole batch, or ``local``, each rank its own; one rank has no difference.
        grad_scale: ``exact`` or ``openclip``; one rank has no difference.
        missing: what a sample means that a store does not have: ``stop``, or ``skip`` its row.
        samples: the log of groups, or None.
        max_failures: failed steps in a row that end the run.
        isolation: ``process``, or ``none``: of the sidecar.
        places: line and column of each key, for messages.
    """

    path: str
    targets: tuple[Target, ...]
    weight: float | None = 1.0
    ratio: Ratio | None = None
    schedule: Schedule = Schedule()
    anchor: Anchor | None = None
    scope: str = "global"
    grad_scale: str = "exact"
    missing: str = "stop"
    samples: Samples | None = None
    max_failures: int = 10
    isolation: str = "process"
    places: Places = field(default_factory=dict, repr=False)

    @property
    def sides(self) -> tuple[str, ...]:
        """Which of ``image`` and ``text`` some penalty is on."""
        return tuple(s for s in ("image", "text") if any(t.features == s for t in self.targets))

    def error(self, message: str, target: Target) -> _errors.InputError:
        """Return an error of a target's penalty, with the place of the setting that it speaks of."""
        message = message.removeprefix("specalign: ").removeprefix("align: ").removeprefix("settings: ")
        spoken: list[Path] = [(word,) for word in re.findall(r"[a-z_]+", message)]
        for term, key in re.findall(r"terms\[(\d+)\]\.?([a-z_]*)", message):
            spoken[:0] = [("terms", int(term), key), ("terms", int(term))]
        here = ((*base, *at) for at in spoken for base in (target.at, ()))
        at = next((at for at in here if at in self.places), target.at)
        return _errors.InputError(f"{where(self.path, self.places, at)}: {message}")


def load(path: str, overrides: list[str]) -> Config:
    """Read `path`, with `overrides` of the form ``NAME=VALUE`` in place of what it says.

    Raises:
        InputError: the file cannot be read, or holds what it should not; the message has file, line and column.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_yaml.LIMIT + 1)
    except (OSError, ValueError) as e:  # a path with a null character is the latter
        raise _errors.InputError(f"{path}: {e.strerror if isinstance(e, OSError) else e}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        if len(data) <= _yaml.LIMIT or e.start < _yaml.LIMIT - 4:  # else it is cut off within a character
            line, column = data[: e.start].count(b"\n") + 1, e.start - data[: e.start].rfind(b"\n")
            raise _errors.InputError(f"{path}:{line}:{column}: not UTF-8 text: {e.reason}") from None
        text = data.decode(errors="replace")
    return parse(text, path, overrides)


def parse(text: str, path: str, overrides: Sequence[str] = ()) -> Config:
    """Read settings from `text`; `path` is for messages. Arguments and errors as for `load`."""
    data, places = _yaml.load(text, path)
    if not isinstance(data, dict):
        line, column = places[()]
        raise _errors.InputError(f"{path}:{line}:{column}: give settings as `name: value` lines")
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or not name:
            raise _errors.InputError(f"specalign: --set {override}: give NAME=VALUE")
        data[name] = _yaml.load(value, f"--set {name}")[0]
        places = {at: place for at, place in places.items() if at[:1] != (name,)}
        places[(name,)] = 0, 0  # the command line
    reader = Reader(path, places)
    reader.known(data, (*RUN, *PENALTY), ())
    reader.terms(data.get("terms"), ("terms",))
    weight, ratio = _weight(reader, data)
    return Config(
        path=path,
        targets=_targets(reader, data),
        weight=weight,
        ratio=ratio,
        schedule=reader.schedule(data.get("schedule")),
        anchor=_anchor(reader, data),
        scope=reader.word(data, ("scope",), ("global", "local")),
        grad_scale="exact" if _exact(reader, data) else "openclip",
        missing=reader.word(data, ("missing",), ("stop", "skip")),
        samples=_samples(reader, data),
        max_failures=reader.whole(data, ("max_failures",), 10, low=1),
        isolation=reader.word(data, ("isolation",), ("process", "none")),
        places=places,
    )


def _weight(reader: Reader, data: dict[str, Any]) -> tuple[float | None, Ratio | None]:
    value = data.get("weight")
    if not isinstance(value, dict):
        return reader.number(data, ("weight",), 1.0), None
    at = ("weight",)
    reader.known(value, ("ratio", "smoothing", "max"), at)
    if value.get("ratio") is None:
        raise reader.wrong(at, "weight is a mapping without ratio: give a number, or {ratio: 0.4}")
    smoothing = reader.number(value, (*at, "smoothing"), 0.0)
    if smoothing >= 1:
        raise reader.wrong((*at, "smoothing"), f"smoothing is {smoothing:g}; give 0 or more and less than 1")
    default = Ratio(1.0).max
    return None, Ratio(
        reader.number(value, (*at, "ratio"), 1.0), smoothing, reader.number(value, (*at, "max"), default)
    )


def _exact(reader: Reader, data: dict[str, Any]) -> bool:
    given = {**data, "grad_scale": "openclip"} if data.get("grad_scale") == "match" else data  # its name before
    return reader.word(given, ("grad_scale",), ("exact", "openclip")) == "exact"


def _targets(reader: Reader, data: dict[str, Any]) -> tuple[Target, ...]:
    """Read `reference`: one, or a list of them. A reference for both sides makes two targets."""
    common = {k: data[k] for k in PENALTY if data.get(k) is not None}
    sides = reader.sides(data, ("features",))
    value = data.get("reference")
    if not isinstance(value, list):
        return tuple(Target(*reader.reference(value, ("reference",)), side, 1.0, common) for side in sides)
    targets: list[Target] = []
    for i, item in enumerate(value):
        at = ("reference", i)
        own: dict[str, Any] = {}
        if isinstance(item, dict):
            known = ("features", "weight", *PENALTY)
            own = {k: v for k, v in item.items() if k in known}
            item = {k: v for k, v in item.items() if k not in known}
        kind, name = reader.reference(item, at)
        weight = reader.number(own, (*at, "weight"), 1.0)
        reader.terms(own.get("terms"), (*at, "terms"))
        penalty = {k: own[k] for k in PENALTY if own.get(k) is not None}
        if penalty.keys() & {"objective", "terms"}:  # one stands in place of the other
            rest = {k: v for k, v in common.items() if k not in ("objective", "terms", "k", "p", "temperature")}
        else:
            rest = common
        for side in reader.sides(own, (*at, "features")) if own.get("features") is not None else sides:
            targets.append(Target(kind, name, side, weight, {**rest, **penalty}, at))
    if not targets:
        raise reader.wrong(("reference",), "reference is an empty list")
    return tuple(targets)


def _anchor(reader: Reader, data: dict[str, Any]) -> Anchor | None:
    value = data.get("anchor")
    if value is None:
        return None
    if not isinstance(value, dict):
        value = {"weight": value}
    at = ("anchor",)
    reader.known(value, ("weight", "features"), at)
    weight = reader.number(value, (*at, "weight"), 1.0)
    return Anchor(weight, reader.sides(value, (*at, "features"))) if weight else None


def _samples(reader: Reader, data: dict[str, Any]) -> Samples | None:
    value = data.get("samples")
    if value is None:
        return None
    if not isinstance(value, dict):
        value = {"every": value}
    at = ("samples",)
    reader.known(value, ("every", "groups", "top"), at)
    every, groups, top = (
        reader.whole(value, (*at, name), default, low=1)
        for name, default in (("every", 100), ("groups", 5), ("top", 8))
    )
    return Samples(every, groups, top)

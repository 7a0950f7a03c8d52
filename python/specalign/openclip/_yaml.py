"""Strict YAML: plain data with the place of every key, and nothing that is said twice or read by others in another way.

PyYAML turns the text into events; what they mean is decided here, because its own answers are those of YAML 1.1: there
``1:30`` is 90, ``yes`` a truth value, ``010`` eight, and 1e-4 a word.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from .._errors import InputError

Path = tuple[str | int, ...]
Places = dict[Path, tuple[int, int]]  # line and column, from 1; (0, 0) is the command line

LIMIT = 1 << 16  # bytes of a document, of which settings need a hundredth; PyYAML reads so many in about two seconds
_DEPTH = 8

_UNPRINTABLE = re.compile("[^\t\n\r -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
# What other readers of YAML take for something else than a word.
_AMBIGUOUS = (
    (re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE), "is not a finite number"),
    (re.compile(r"true|false|null", re.IGNORECASE), "is spelt true, false or null"),
    (re.compile(r"yes|no|on|off|y|n", re.IGNORECASE), "is a truth value to some readers of YAML; give true or false"),
    (re.compile(r"[-+]?0[0-9_]+"), "has a leading zero, which makes it octal to some readers of YAML; leave it out"),
    (re.compile(r"[-+]?0[xob][0-9a-f_]+", re.IGNORECASE), "is no decimal number; give one"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-9_]+)+(\.[0-9_]*)?"), "is a number of base 60 to some readers of YAML"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?"), "has underscores; give the digits only"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt\s].*)?", re.DOTALL), "is a date to some readers of YAML"),
    (re.compile(r"=|<<"), "is no word"),
)  # fmt: skip


def load(text: str, name: str) -> tuple[Any, Places]:
    """Read one YAML document.

    Args:
        text: the document.
        name: how messages call it.

    Returns:
        The data: dictionaries, lists, words, truth values, finite numbers and None; and the place of every key and
        list item by its path, the document's own being ``()``.

    Raises:
        InputError: it is no YAML, has more than one document, says a key twice, has tags, anchors, aliases or merge
            keys, or what is no plain data or would be read differently by others; the message has line and column.
    """
    return _Document(text, name).read()


class _Document:
    """A document that is being read."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._places: Places = {}
        if len(text.encode("utf-8", "surrogatepass")) > LIMIT:
            raise InputError(f"{name}: larger than {LIMIT >> 10} KiB, which no settings are")
        text = text.removeprefix("\ufeff")
        found = _UNPRINTABLE.search(text)
        if found:
            before = text[: found.start()]
            line, column = before.count("\n") + 1, found.start() - before.rfind("\n")
            raise InputError(f"{name}:{line}:{column}: the character U+{ord(found[0]):04X} cannot be in YAML as it is")
        self._parser = yaml.SafeLoader(text)

    def read(self) -> tuple[Any, Places]:
        try:
            self._next()  # the stream's start
            first = self._next()
            if isinstance(first, yaml.StreamEndEvent):
                raise InputError(f"{self._name}: the file is empty")
            value = self._value(self._next(), ())
            self._next()  # the document's end
            event = self._next()
            if not isinstance(event, yaml.StreamEndEvent):
                raise self._wrong(event.start_mark, "a second document begins here; give one")
            return value, self._places
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark or self._parser.get_mark()
            raise self._wrong(mark, f"not YAML: {' '.join((e.problem or str(e)).split())}") from None
        except (yaml.YAMLError, ValueError, OverflowError) as e:  # such as an escape beyond Unicode
            if isinstance(e, InputError):
                raise
            raise self._wrong(self._parser.get_mark(), f"not YAML: {' '.join(str(e).split())}") from None

    def _next(self) -> Any:
        return self._parser.get_event()  # type: ignore[no-untyped-call]

    def _wrong(self, mark: Any, message: str) -> InputError:
        return InputError(f"{self._name}:{mark.line + 1}:{mark.column + 1}: {message}")

    def _value(self, event: Any, path: Path) -> Any:
        """Read what `event` begins, to its end."""
        mark = event.start_mark
        self._places.setdefault(path, (mark.line + 1, mark.column + 1))
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._wrong(mark, "anchors and aliases (& and *) are not taken; write it out, or in quotes")
        if event.tag is not None:
            raise self._wrong(mark, "tags (!) are not taken; leave it out, or give a word in quotes")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if len(path) >= _DEPTH:
            raise self._wrong(mark, f"nested too deeply: more than {_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                items.append(self._value(event, (*path, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, path)
            mapping[key] = self._value(self._next(), (*path, key))
        return mapping

    def _key(self, event: Any, path: Path) -> str:
        mark = event.start_mark
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
            raise self._wrong(mark, "a key has to be a word")
        if event.value == "<<" and not event.style:
            raise self._wrong(mark, "merge keys (<<) are not taken; write it out")
        key = self._scalar(event)
        if not isinstance(key, str):
            raise self._wrong(mark, f"the key {event.value!r} is not a word")
        if (*path, key) in self._places:
            raise self._wrong(mark, f"{key} is there twice; the first is on line {self._places[(*path, key)][0]}")
        self._places[(*path, key)] = mark.line + 1, mark.column + 1
        return key

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style:  # quoted, or a block
            if any(not c.isprintable() for c in text):
                raise self._wrong(event.start_mark, f"{_short(text)} has characters that cannot be printed")
            return text
        if text in _WORDS or (text.lower() in _WORDS and text in (text.capitalize(), text.upper())):
            return _WORDS[text.lower()]
        if _WHOLE.fullmatch(text):
            if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
                raise self._wrong(event.start_mark, f"{_short(text)} is beyond 64 bits")
            return int(text)
        for what, why in _AMBIGUOUS:
            if what.fullmatch(text):
                raise self._wrong(event.start_mark, f"{_short(text)} {why}; a word goes in quotes")
        if _NUMBER.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                raise self._wrong(event.start_mark, f"{_short(text)} is too large a number")
            return number
        return text


def _short(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}..."

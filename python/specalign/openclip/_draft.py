"""A store in the making: pieces that are done stay done, whoever is interrupted, and several processes share them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any

import numpy as np

from ._files import replace
from ._store import StoreError

_PLAN = "plan.json"
_POLL = 0.2  # seconds


class Draft:
    """A folder of pieces beside the store that they will be: ``NAME.npz`` with ids, features and sizes."""

    def __init__(self, output: str, plan: dict[str, Any], *, force: bool) -> None:
        """Go on with the draft of a store, or begin one.

        Args:
            output: the store's path.
            plan: what makes the pieces: model, preprocessing and the like.
            force: throw away a draft of another plan.

        Raises:
            StoreError: there is a draft of another plan, or none can be made.
        """
        self.path = f"{os.path.abspath(output)}.part"
        try:
            os.makedirs(self.path, exist_ok=True)
            file = os.path.join(self.path, _PLAN)
            text = json.dumps(plan, indent=2, sort_keys=True)
            found = None
            if os.path.exists(file):
                with open(file, encoding="utf-8") as f:
                    found = f.read()
            if found is not None and found != text:
                if not force:
                    raise StoreError(f"specalign: {self.path} holds pieces of another store; remove it, or say --force")
                shutil.rmtree(self.path)
                os.makedirs(self.path)
            if found != text:
                replace(file, lambda f: f.write(text.encode()))
        except OSError as e:
            raise StoreError(f"specalign: {self.path} cannot be written: {e.strerror or e}") from None

    def done(self, name: str) -> bool:
        """Return whether a piece is there."""
        return os.path.exists(self._file(name))

    def put(self, name: str, ids: np.ndarray, features: np.ndarray, sizes: np.ndarray) -> None:
        """Keep a piece: (n,) int64, (n, d) float32, (n,) int64."""
        try:
            replace(self._file(name), lambda file: np.savez(file, ids=ids, features=features, sizes=sizes))
        except OSError as e:
            raise StoreError(f"specalign: {self._file(name)} cannot be written: {e.strerror or e}") from None

    def wait(self, names: list[str]) -> None:
        """Wait for the pieces that other processes make."""
        lacking = [name for name in names if not self.done(name)]
        while lacking:
            time.sleep(_POLL)
            lacking = [name for name in lacking if not self.done(name)]

    def get(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a piece. Raises `StoreError` if it is damaged."""
        try:
            with np.load(self._file(name), allow_pickle=False) as piece:
                return piece["ids"], piece["features"], piece["sizes"]
        except (OSError, ValueError, KeyError, EOFError) as e:
            raise StoreError(f"specalign: {self._file(name)} is damaged ({e}); remove it and go on") from None

    def remove(self) -> None:
        """Remove the draft: the store is there."""
        shutil.rmtree(self.path, ignore_errors=True)

    def leave(self) -> str:
        """Remove a draft that holds nothing, after a failure. Returns what to say of one that does."""
        pieces = [name for name in os.listdir(self.path) if name.endswith(".npz")] if os.path.isdir(self.path) else []
        if pieces:
            return f"{len(pieces):,} pieces are kept in {self.path}: the same command goes on with them"
        self.remove()
        return "nothing was written"

    def _file(self, name: str) -> str:
        return os.path.join(self.path, f"{name}.npz")


class Progress:
    """Says on stderr how far it is: a line a tenth, or one that changes on a terminal."""

    def __init__(self, total: int, what: str) -> None:
        """`total` of `what`."""
        self._total = total
        self._what = what
        self._done = 0
        self._said = 0
        self._started = time.monotonic()

    def add(self, count: int, note: str = "") -> None:
        """Count what was done."""
        self._done += count
        tenth = self._done * 10 // max(1, self._total)
        left = (time.monotonic() - self._started) / max(1, self._done) * (self._total - self._done)
        text = f"{self._done:,} of {self._total:,} {self._what}{note}, {left:.0f} s left"
        if sys.stderr.isatty():
            print(f"\r{text} ", end="\n" if self._done == self._total else "", file=sys.stderr, flush=True)
        elif tenth > self._said:
            self._said = tenth
            print(text, file=sys.stderr, flush=True)

"""The command, its files and its answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demo.console import DemoError
from demo.files import written

from .packages import ROOT

OUT = ROOT / "studies-out"


def save(study: str, name: str, rows: npt.NDArray[Any]) -> Path:
    """Write an embedding for the command to read."""
    path = OUT / study / f"{name}.npy"
    with written(path) as file:
        np.save(file, rows)
    return path


def lines(study: str, name: str, items: Sequence[object]) -> Path:
    """Write a list, one item a line."""
    path = OUT / study / f"{name}.txt"
    with written(path, "w") as file:
        file.writelines(f"{item}\n" for item in items)
    return path


def specalign(*args: object) -> dict[str, Any]:
    """Run a verb with --json and return its document."""
    binary = os.environ.get("SPECALIGN_BINARY", str(ROOT / "bin" / "specalign"))
    command = [binary, *map(str, args), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise DemoError(f"{' '.join(command)} ended with status {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print(
            "| "
            + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row)
            + " |"
        )

"""`specalign bench` against this Python's PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def test_contest():
    program = os.environ["SPECALIGN_BINARY"]
    args = ["bench", "--rows", "64", "--dims", "40,24", "--seconds", "0.01", "--threads", "1", "--json"]
    done = subprocess.run([program, *args, "--python", sys.executable], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    step = report["step"]
    figures = {f["name"]: f for f in step["contestants"]}
    assert next(iter(figures)) == "engine"
    assert {"PyTorch, formed, eigh", "engine, through the sidecar", "paper: 20 + 20 power steps"} <= set(figures)
    assert step["torch"]["torch"]
    assert report["notes"] == []
    for name, figure in figures.items():
        assert 0 < figure["min_seconds"] <= figure["median_seconds"]
        assert figure["gradient_error"] < 1e-3 or name.startswith("paper")

"""`python -m specalign.ray features`: the store of one process, though a worker is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from specalign.openclip import Store, _features

pytest.importorskip("ray")

MODEL = ["--model", "python:openclip_reference:slow", "--batch-size", "8"]


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def workers(of):
    """Return the processes below one that do a share of the work."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cmdline").read_bytes().startswith(b"ray::_share"):
                pid = int(entry.name)
                while pid > 1 and pid != of:
                    pid = parent(pid)
                found += [int(entry.name)] * (pid == of)
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_store_is_made_though_a_worker_dies(shards, tmp_path, monkeypatch):
    batches = tmp_path / "batches"
    monkeypatch.setenv("SPECALIGN_TEST_BATCHES", str(batches))
    assert _features.main([*MODEL, "--shards", shards, "--center", "--output", str(tmp_path / "one")]) == 0
    whole = len(batches.read_text().splitlines())
    batches.unlink()
    command = [sys.executable, "-m", "specalign.ray", "features", *MODEL, "--shards", shards, "--center"]
    command += ["--processes", "1", "--output", "store"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not list(tmp_path.glob("store.part/*.npz")) and process.poll() is None:
        time.sleep(0.02)
    (worker,) = workers(process.pid)
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    assert out.startswith("store: 48 features of 48 images by "), out
    assert len(batches.read_text().splitlines()) < whole + whole // 2  # the first shard was not done again
    one, two = Store.open(tmp_path / "one"), Store.open(tmp_path / "store")
    assert two.fingerprint == one.fingerprint
    np.testing.assert_array_equal(two.rows(one.ids), one.rows(one.ids))
    again = subprocess.run([*command, "--model", "python:no:where"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr == "specalign: store is there; choose another place, or say --force to replace it\n"

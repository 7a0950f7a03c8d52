"""Embeddings in shards, the command over them, and float64 NumPy beside it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np


def write(folder, shards, rows, dims, seed=3, kind="f4"):
    """Write two embeddings of clustered samples: `shards` files of `rows` rows on average."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    centres = [rng.standard_normal((5 + 3 * side, d)) for side, d in enumerate(dims)]
    at = 0
    for shard in range(shards):
        n = rows + (shard % 3 - 1) * (rows // 7)
        samples = np.arange(at, at + n)
        at += n
        for side, d in enumerate(dims):
            x = centres[side][samples % len(centres[side])] + 0.8 * rng.standard_normal((n, d))
            np.save(folder / f"{'ab'[side]}-{shard:03}.npy", x.astype(kind))
    return folder


def run(*arguments, code=0, threads="1"):
    """Run the command and return what it says: stdout, or stderr where it must fail."""
    command = [os.environ["SPECALIGN_BINARY"], *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SPECALIGN_THREADS": threads})
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def sides(folder):
    return ["--student", f"{folder}/a-*.npy", "--reference", f"{folder}/b-*.npy"]


def comparison(folder, *arguments, **options):
    """Return what one process says of all shards, without what differs between two runs."""
    one = ("compare", *sides(folder), "--certify=false", "--device", "cpu", "--json")  # as shards are
    return same(run(*one, *arguments, **options))


def same(text):
    document = json.loads(text)
    for key in ("seconds", "stages", "warnings"):
        del document[key]
    del document["settings"]["threads"]
    return document


def spectrum(folder):
    """Return the eigenvalues of L with cosine kernels, in float64."""
    sums, n = 0.0, 0
    for a, b in zip(sorted(Path(folder).glob("a-*.npy")), sorted(Path(folder).glob("b-*.npy")), strict=True):
        x, y = (np.load(f).astype(np.float64) for f in (a, b))
        phi = np.hstack([x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)])
        sums, n = sums + phi.T @ phi, n + len(x)
    values, vectors = np.linalg.eigh(sums / n)
    root = vectors * np.sqrt(np.maximum(values, 0))
    d = x.shape[1]
    return np.linalg.eigvalsh(root[:d].T @ root[:d] - root[d:].T @ root[d:])

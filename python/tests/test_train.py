"""`specalign train` takes the steps that PyTorch with the sidecar takes, from the same weights and batches."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess

import numpy as np
import pytest
import torch

from specalign.torch import SpecAlign

ROWS, INPUTS, HIDDEN, STEPS, RATE = 200, 12, 16, 50, 0.01


def train(tmp_path, name, rate, steps, settings):
    out = tmp_path / name
    path = tmp_path / f"{name}.yaml"
    path.write_text(
        "# The same curve?\n"
        "data: {inputs: inputs.npy, reference: reference.npy}\n"
        f"student: {{kind: mlp, hidden: [{HIDDEN}], dim: {INPUTS}, residual: true}}\n"
        f"penalty: {settings}\n"
        f"optimizer: {{learning_rate: {rate}}}\n"
        f"steps: {steps}\nbatch: {ROWS}\n"
    )
    args = [os.environ["SPECALIGN_BINARY"], "train", path, "--out", out]
    done = subprocess.run(args, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return out / "seed-0"


def weights(run):
    """Return the parameters of a run's checkpoint, by layer: weights (in, out) and bias."""
    data = (run / "checkpoint").read_bytes()
    at = data.index(b"\n") + 1
    (size,) = struct.unpack_from("<I", data, at)
    header = json.loads(data[at + 4 : at + 4 + size])
    at += 4 + size
    flat = []
    for count in header["sizes"]:
        flat.append(np.frombuffer(data, "<f4", count, at).copy())
        at += 3 * 4 * count  # behind it its moments
    return flat


@pytest.mark.parametrize("settings", [{"objective": "ky_fan", "k": 3}, {"objective": "frobenius"}])
def test_same_curve_as_torch(tmp_path, sidecar, settings):
    rng = np.random.default_rng(3)
    hidden = rng.standard_normal((4, 8))[rng.integers(0, 4, ROWS)]
    inputs = (hidden @ rng.standard_normal((8, INPUTS)) + rng.standard_normal((ROWS, INPUTS))).astype(np.float32)
    reference = (hidden + 0.1 * rng.standard_normal((ROWS, 8))).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "reference.npy", reference)
    given = json.dumps({**settings, "weight": 2})
    # A step too small to change a weight shows where the run begins.
    w0, b0, w1, b1 = (torch.tensor(w) for w in weights(train(tmp_path, "start", 1e-30, 1, given)))
    with (train(tmp_path, "run", RATE, STEPS, given) / "steps.csv").open() as f:
        want = [float(row["loss"]) for row in csv.DictReader(f)]

    parameters = [w0.view(INPUTS, HIDDEN), b0, w1.view(HIDDEN, INPUTS), b1]
    for p in parameters:
        p.requires_grad_()
    x = torch.tensor(inputs)
    loss_fn = SpecAlign(2.0, sidecar=sidecar, max_failures=1, **settings)
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    got = []
    for _ in range(STEPS):
        features = torch.relu(x @ parameters[0] + parameters[1]) @ parameters[2] + parameters[3] + x
        loss = loss_fn(features, reference)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        got.append(loss.item())
    loss_fn.close()
    assert got[-1] < 0.9 * got[0]
    np.testing.assert_allclose(want, got, rtol=1e-4)

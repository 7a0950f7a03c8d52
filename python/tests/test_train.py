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
from demo.evaluation import knn_accuracy, probe_accuracy
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

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


def test_scores_against_scikit_learn(tmp_path):
    """Probe and neighbours of the reference's own rows; `metrics` and the demonstration of OpenCLIP runs agree, too."""
    rng = np.random.default_rng(4)
    centers = rng.standard_normal((4, 8))
    rows, labels = {}, {}
    for name, count in (("train", 200), ("probe", 400), ("test", 300)):
        labels[name] = rng.integers(0, 4, count)
        x = (centers[labels[name]] + 1.5 * rng.standard_normal((count, 8))) * np.arange(1, 9)
        rows[name] = x.astype(np.float32)
        np.save(tmp_path / f"{name}.npy", rows[name])
        (tmp_path / f"{name}.txt").write_text("".join(f"{y}\n" for y in labels[name]))
    path = tmp_path / "scores.yaml"
    parts = "".join(
        f"  {part}: {{inputs: {name}.npy, reference: {name}.npy, labels: {name}.txt}}\n"
        for part, name in (("train", "probe"), ("test", "test"))
    )
    path.write_text(
        "# How good is the reference?\ndata: {inputs: train.npy, reference: train.npy}\n"
        "student: {kind: linear, dim: 8, residual: true}\nsteps: 1\nbatch: 100\noptimizer: {learning_rate: 1e-30}\n"
        f"evaluation:\n{parts}  k: 5\n"
    )
    out = tmp_path / "out"
    args = [os.environ["SPECALIGN_BINARY"], "train", path, "--out", out]
    done = subprocess.run(args, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "seed-0" / "result.json").read_text())
    assert found["before"] == found["reference"]  # a residual student begins as its inputs
    score = found["reference"]
    assert score["spec_diff"] == pytest.approx(0, abs=1e-6)
    assert score["nngs"] == pytest.approx(1)
    assert score["cka"] == pytest.approx(1, abs=1e-6)

    scaler = StandardScaler().fit(rows["probe"])
    model = LogisticRegression(C=1, tol=1e-8, max_iter=2000).fit(scaler.transform(rows["probe"]), labels["probe"])
    near = KNeighborsClassifier(5, metric="cosine").fit(rows["probe"], labels["probe"])
    one = 1 / 300  # a sample at the border, or a vote that is even
    assert score["probe"] == pytest.approx(model.score(scaler.transform(rows["test"]), labels["test"]), abs=one)
    assert score["knn"] == pytest.approx(near.score(rows["test"], labels["test"]), abs=6 * one)
    theirs = probe_accuracy(rows["probe"], labels["probe"], rows["test"], labels["test"], decay=1 / 400)
    assert score["probe"] == pytest.approx(theirs, abs=one)
    # Votes that are even go to the label of the nearest there, of the nearer in sum here.
    theirs = knn_accuracy(rows["probe"], labels["probe"], rows["test"], labels["test"], k=5)
    assert score["knn"] == pytest.approx(theirs, abs=6 * one)

    held = ["--labels", "test.txt", "--train", "probe.npy", "--train-labels", "probe.txt", "--knn-k", "5", "--json"]
    args = [os.environ["SPECALIGN_BINARY"], "metrics", "test.npy", "test.npy", *held]
    done = subprocess.run(args, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["held_out"] == {"probe": score["probe"], "knn": score["knn"], "k": 5, "train": 400}

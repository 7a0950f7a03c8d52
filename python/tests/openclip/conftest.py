"""A small data set of images and captions, and a CLIP small enough for a step in milliseconds."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip_train", reason="OpenCLIP's training program is not installed")

ROWS = 48

MODEL = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with ``train.csv``, its images, and ``model/`` for OpenCLIP's ``local-dir:``."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(3)
    rows = []
    for i in range(ROWS):
        pixels = rng.integers(0, 60, (32, 32, 3)) + 60 * (i % 4)
        pixels[: 8 * (1 + i % 3)] //= 2
        path = folder / f"{i:03}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
        rows.append((str(path), ["red", "green"][i % 2]))
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("filepath", "title"))
        writer.writerows(rows)
    (folder / "model").mkdir()
    (folder / "model/open_clip_config.json").write_text(json.dumps(MODEL))
    return folder


@pytest.fixture(scope="session")
def store(data):
    """A store of features that tell the images' four kinds apart."""
    from specalign.openclip import _features

    path = data / "store"
    status = _features.main(
        ["--model", "python:openclip_reference:blocks", "--csv", str(data / "train.csv"), "--csv-separator", ",",
         "--center", "--output", str(path)]
    )  # fmt: skip
    assert status == 0
    return path


@pytest.fixture
def arguments(data, tmp_path):
    """Arguments of ``open_clip_train`` for two epochs of three steps; the run is called ``run``."""
    return [
        "--model", f"local-dir:{data / 'model'}", "--train-data", str(data / "train.csv"), "--dataset-type", "csv",
        "--csv-separator", ",", "--batch-size", "16", "--epochs", "2", "--lr", "1e-3", "--warmup", "2",
        "--device", "cpu", "--precision", "fp32", "--workers", "0", "--seed", "5", "--log-every-n-steps", "1",
        "--logs", str(tmp_path), "--name", "run",
    ]  # fmt: skip

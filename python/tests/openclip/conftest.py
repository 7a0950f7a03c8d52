"""A small data set of images and captions, and a CLIP small enough for a step in milliseconds."""

from __future__ import annotations

import csv
import io
import json
import tarfile

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


@pytest.fixture(scope="session")
def shards(data):
    """``train-{0,1}.tar`` of the same images, with names that both shards use, and their sizes."""
    lines = (data / "train.csv").read_text().splitlines()[1:]
    for shard in range(2):
        with tarfile.open(data / f"train-{shard}.tar", "w") as tar:
            for i, line in enumerate(lines[shard * ROWS // 2 : (shard + 1) * ROWS // 2]):
                path, caption = line.rsplit(",", 1)
                with open(path, "rb") as file:
                    add(tar, f"{i:03}.png", file.read())
                add(tar, f"{i:03}.txt", f"{caption} {i}".encode())
    (data / "sizes.json").write_text(json.dumps({f"train-{i}.tar": ROWS // 2 for i in range(2)}))
    return str(data / "train-{0..1}.tar")


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))

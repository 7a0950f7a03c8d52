"""The reference's features, made by the launcher from the real model, for a handful of images."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from specalign.openclip import Store

from demo import files, pairs, store
from demo.console import Console

ROOT = Path(store.__file__).parents[1]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "python")]))
    rng = np.random.default_rng(0)
    return [
        pairs.prepare(name, rng.integers(0, 256, (12, 28, 28), dtype=np.uint8), np.arange(12, dtype=np.uint8) % 10,
                      tmp_path, ROOT, Console())
        for name in ("train", "held-out")
    ]  # fmt: skip


def test_it_goes_on_after_an_interruption(parts, tmp_path, capfd):
    first = store.obtain(*parts, tmp_path, ROOT, Console())
    assert first.of_train.shape == first.held_out.shape == (12, 1280)
    assert np.abs(first.of_train.mean(0)).max() < 1e-5
    (tmp_path / "reference.json").unlink()  # as an interruption after the first half leaves it
    again = store.obtain(*parts, tmp_path, ROOT, Console())
    assert "is there" not in capfd.readouterr().err
    np.testing.assert_array_equal(again.of_train, first.of_train)
    np.testing.assert_array_equal(again.held_out, first.held_out)
    assert Store.open(again.train).fingerprint == Store.open(first.train).fingerprint


def test_fingerprint_of_sources(tmp_path):
    folder = tmp_path / "package"
    shutil.copytree(Path(files.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = files.digest_of_sources(folder)
    (folder / "notes.txt").write_text("x")
    assert files.digest_of_sources(folder) == before
    with (folder / "files.py").open("a") as file:
        file.write("# one line more\n")
    assert files.digest_of_sources(folder) != before

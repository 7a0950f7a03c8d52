"""The recipes in python/examples, run."""

import sys
from pathlib import Path

import processes
import pytest
import torch

EXAMPLES = str(Path(__file__).resolve().parents[2] / "examples")


def distributed(folder):
    sys.path.insert(0, EXAMPLES)
    import os

    import ddp

    model, history = ddp.main(steps=10)
    if os.environ["RANK"] == "0":
        torch.save((model.state_dict(), history), f"{folder}/{os.environ['WORLD_SIZE']}.pt")


def test_ddp(tmp_path):
    """Two ranks train what one process does on the same batches."""
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        for child in processes.ranks(size, distributed, (str(tmp_path),), folder):
            status, output = child.finish()
            assert status == 0, output
    (one, alone), (two, both) = (torch.load(tmp_path / f"{size}.pt", weights_only=True) for size in (1, 2))
    assert both == pytest.approx(alone, rel=1e-5)
    assert alone[-1] < alone[0]
    for name, want in one.items():
        assert torch.linalg.norm(two[name] - want) <= 1e-5 * torch.linalg.norm(want), name


def example(name):
    sys.path.insert(0, EXAMPLES)
    history = __import__(name).main(epochs=3)
    assert history[-1] < 0.9 * history[0], history


@pytest.mark.parametrize(
    ("name", "package"), [("lightning_module", "pytorch_lightning"), ("hf_trainer", "transformers")]
)
def test_trainers(tmp_path, name, package):
    pytest.importorskip(package)
    status, output = processes.Child(example, (name,), tmp_path / "output.txt").finish()
    assert status == 0, output
    assert "penalty" in output

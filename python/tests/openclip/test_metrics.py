"""What is written of a run: beside a disk that is full, and of an epoch's steps."""

import contextlib
import json
import logging
import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from specalign.openclip._config import Samples, Target
from specalign.openclip._loader import Window
from specalign.openclip._metrics import FILE, Metrics
from specalign.openclip._penalty import Aligned, Step
from specalign.openclip._ranks import Alone
from specalign.openclip._samples import Groups


@pytest.fixture
def step(sidecar, rng):
    session = sidecar.session(objective="ky_fan", k=2)
    result = session.step(rng.standard_normal((8, 4)), rng.standard_normal((8, 4)))
    yield Step(1.0, result.value, {}, [result], None, 2.0)
    session.close()


@contextlib.contextmanager
def full_disk(size):
    """While it lasts, no file grows beyond `size`."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))  # Python ignores the signal that goes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_groups_that_cannot_be_written_or_computed_end_no_run(tmp_path, sidecar, rng, caplog):
    train = SimpleNamespace(dataloader=SimpleNamespace(dataset=None))
    arguments = SimpleNamespace(log_path=str(tmp_path / "out.log"), rank=0)
    groups = Groups(Samples(1, 2, 3), train, arguments, Alone())
    session = sidecar.session(objective="ky_fan", k=2)
    student, reference = (torch.from_numpy(rng.standard_normal((8, 4)).astype("f4")) for _ in range(2))
    one = Aligned(Target("live", "m", "image", 1.0, {}), None, session, session.step(student, reference))

    def entry(number, seen=student):
        one.seen = seen, reference, None
        groups.step(number, Window(1, keep=False), [one], Step(1.0, one.result.value, {}, [one.result], None, 2.0))

    with full_disk(40):
        entry(0)
        entry(1)
    entry(2, student * float("nan"))
    entry(3)
    assert [json.loads(line)["step"] for line in (tmp_path / "specalign_groups.jsonl").read_text().splitlines()] == [3]
    assert caplog.text.count("misses entries") == 1
    assert "no groups of step 2: " in caplog.text
    session.close()


def test_a_full_disk_is_warned_of_once(tmp_path, step, caplog):
    metrics = Metrics(SimpleNamespace(log_path=str(tmp_path / "out.log")))
    metrics.step(0, 0, step, [], log=False, writer=None)
    size = (tmp_path / FILE).stat().st_size
    with full_disk(size + 40):
        for i in range(1, 4):
            metrics.step(i, 0, step, [], log=False, writer=None)
    metrics.step(4, 0, step, [], log=False, writer=None)
    metrics.close()
    assert [json.loads(line)["step"] for line in (tmp_path / FILE).read_text().splitlines()] == [0, 4]
    assert caplog.text.count("misses steps") == 1


def test_an_epoch_is_summed_up(step, caplog):
    caplog.set_level(logging.INFO)
    metrics = Metrics(SimpleNamespace())
    first = step.value
    for i in range(3):
        metrics.step(i, 0, step, [], log=False, writer=None)
    metrics.step(3, 0, Step(1.0, 0.0, {}, [], "why", 2.0), [], log=False, writer=None)
    metrics.epoch(0, 1.0)
    assert f"penalty {first:.5g} -> {first:.5g} over 4 steps, median 2.00 ms" in caplog.text
    assert "1 failed and counted as zero" in caplog.text


def test_an_epoch_of_a_million_steps_is_small(step):
    metrics = Metrics(SimpleNamespace())
    metrics.step(0, 0, step, [], log=False, writer=None)
    kept = [v for v in vars(metrics._epoch).values() if not isinstance(v, (int, float))]
    assert sum(np.asarray(v).nbytes for v in kept) == 8

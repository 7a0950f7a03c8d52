"""The library with GPUs in this process, over the emulator, whose device memory is the host's: `make emu-python`."""

from __future__ import annotations

import os

import numpy as np
import pytest
from batches import clustered
from test_gpu import OnGPU, room

import specalign
from specalign import _inprocess, _library

pytestmark = pytest.mark.skipif(
    "SPECALIGN_EMULATOR" not in os.environ, reason="the emulator of a GPU is not here: make emu-python"
)
N, D1, D2 = 52, 9, 7


@pytest.fixture(scope="module")
def there():
    with specalign.Sidecar(device="cuda", isolation="none") as sidecar:
        yield sidecar


@pytest.fixture
def rows(rng):
    return clustered(rng, N, D1, D2)


def test_auto_takes_the_gpu(there, rows):
    with specalign.Sidecar(isolation="none") as auto, auto.session(k=2) as session:
        r = session.step(*rows)
        assert r.device == auto.hello.device == there.hello.device == "cuda:0"
        assert "compute capability 9.0" in auto.hello.device_note
    with there.session(k=2, device="cpu") as session:
        exact = session.step(*rows)
    assert exact.device == "cpu"
    assert r.value == pytest.approx(exact.value, rel=1e-5)
    assert np.linalg.norm(r.grad - exact.grad) <= 1e-4 * np.linalg.norm(exact.grad)


def test_rows_and_gradient_of_the_device(there, rows):
    """They have the bits of those of the host, apart or dense, also where the step is left to the CPU."""
    wide = np.full((N, D1 + 3), np.nan, np.float32)
    wide[:, :D1] = rows[0]
    half = rows[1].astype(np.float16)
    for settings in ({"k": 2}, {"objective": "schatten"}):
        with there.session(**settings) as session:
            want = session.step(rows[0], half)
        for on in ((1, 1, 1), (1, 0, 0), (0, 1, 1)):
            with there.session(**settings) as session:
                gradient = np.full((N, D1), np.nan, np.float32)
                student = wide if on[0] else rows[0]
                step = _inprocess._Step(seq=1, gradient=gradient.ctypes.data, gradient_on_device=on[2])
                step.student = _inprocess._Matrix(student.ctypes.data, N, D1, student.shape[1], 1, on[0])
                step.reference = _inprocess._Matrix(half.ctypes.data, N, D2, D2, 2, on[1])
                reply = _inprocess._Reply()
                assert there._host.step(session._stepper._id, step, reply, 60) == 0
            assert reply.value == want.value
            assert np.array_equal(gradient, want.grad)


def test_errors_of_rows_of_the_device(there, rows):
    bad = rows[0].copy()
    bad[5, 2] = np.nan
    with there.session(k=2) as session, there.session(k=2, device="cpu") as cpu:
        for stepper, student, text in (
            (session._stepper, bad, r"row 5 of the student.* not finite"),
            (cpu._stepper, rows[0], "in a device's memory, and the session runs on cpu"),
        ):
            step = _inprocess._Step(seq=1)
            step.student = _inprocess._Matrix(student.ctypes.data, N, D1, D1, 1, 1)
            step.reference = _inprocess._Matrix(rows[1].ctypes.data, N, D2, D2, 1, 0)
            with pytest.raises(specalign.InputError, match=text):
                there._host.step(stepper._id, step, _inprocess._Reply(), 60)
        assert session.step(*rows).seq == cpu.step(*rows).seq == 1


def test_a_session_moves_between_sidecar_and_library_on_the_gpu(there, rows):
    with specalign.Sidecar(device="cuda") as sidecar, sidecar.session(k=2) as first, there.session(k=2) as second:
        first.step(*rows)
        second.restore(first.state())
        a, b = first.step(*rows), second.step(*rows)
    assert (a.value, a.device) == (b.value, b.device)
    assert np.array_equal(a.grad, b.grad)


def test_without_a_gpu_the_library_is_not_loaded(monkeypatch):
    monkeypatch.setenv("SIMT_DEVICES", "0")
    monkeypatch.setattr(_library, "_asked", {})
    with specalign.Sidecar(isolation="none") as sidecar:
        assert sidecar.hello.device == "cpu"
        assert sidecar.hello.device_note == "the NVIDIA driver finds no GPU"
        with pytest.raises(specalign.InputError, match="device is cuda, but the NVIDIA driver finds no GPU; give auto"):
            sidecar.session(device="cuda")


def test_arrays_on_the_gpu_stay_there(there, rows):
    """As with a sidecar, and with the bits of rows in host memory; a gradient goes to either memory."""
    with there.session(k=2) as session:
        want = session.step(*rows)
        assert want.memory == "host"
        assert session.memory_note == ""
    variants = [(OnGPU(rows[0]), OnGPU(rows[1])), (OnGPU(rows[0], D1 + 3), rows[1]), (rows[0], OnGPU(rows[1]))]
    for student, reference in variants:
        for out in (room(rows[0]), np.empty((N, D1), np.float32)):
            with there.session(k=2) as session:
                r = session.step(student, reference, out)
                later = session.submit(student, reference, out).result(60)
            assert (r.value, r.memory, r.grad) == (want.value, "device", out)
            assert later.seq == 2
            with there.session(k=2) as session:
                session.submit(student, reference, out).result(60)
            got = out if isinstance(out, np.ndarray) else out.numpy()
            assert np.array_equal(got, want.grad)

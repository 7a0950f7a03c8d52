"""Rows that stay on a GPU, end to end, on the emulator: `make emu-python` builds it and runs this."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from batches import clustered

import specalign
from specalign import _gpu

pytestmark = pytest.mark.skipif(
    "SPECALIGN_EMULATOR" not in os.environ, reason="the emulator of a GPU is not here: make emu-python"
)
SETTINGS = {"objective": "ky_fan", "k": 2, "kernel": "cosine"}


class OnGPU:
    """An array in the memory of the emulated GPU, as any library's says where it lies."""

    def __init__(self, array, stride=None):
        self.shape, self.dtype = array.shape, array.dtype
        self.pitch = array.itemsize * (stride or array.shape[1])
        self.driver, address = _gpu.driver(), ctypes.c_uint64()
        with self.driver.current(0):
            self.driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(self.pitch * array.shape[0]))
        self.address = address.value
        self._copy(np.ascontiguousarray(array), True)

    def _copy(self, host, up):
        here = _gpu.Place(host.ctypes.data, host.shape[1] * host.itemsize)
        there = _gpu.Place(self.address, self.pitch, 0)
        to, source = (there, here) if up else (here, there)
        self.driver.copy(0, to, source, here.pitch, host.shape[0], 0)
        self.driver.wait(0, 0)

    def numpy(self):
        host = np.empty(self.shape, self.dtype)
        self._copy(host, False)
        return host

    @property
    def __cuda_array_interface__(self):
        strides = (self.pitch, self.dtype.itemsize)
        data = (self.address, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": data, "strides": strides, "version": 3}

    def __del__(self):
        with self.driver.current(0):
            self.driver.call("cuMemFree_v2", ctypes.c_uint64(self.address))


def room(array):
    return OnGPU(np.full(array.shape, np.nan, np.float32))


def rows(seed=7, n=52, d1=9, d2=7):
    return clustered(np.random.default_rng(seed), n, d1, d2)


def step(session, student, reference, **options):
    """Take a step whose student is on the GPU; the value and the gradient's bits, and the result."""
    out = room(student)
    result = session.step(OnGPU(student), reference, out, **options)
    assert result.grad is out
    return (result.value, out.numpy().tobytes()), result


def emulated(pid="self"):
    """Count the descriptors of memory of the emulated GPU in a process."""
    return sum("emulated-gpu" in os.readlink(p) for p in Path(f"/proc/{pid}/fd").iterdir() if p.is_symlink())


@pytest.fixture(scope="module")
def sidecar():
    with specalign.Sidecar(device="cuda", threads=1) as sidecar:
        assert sidecar.hello.device == "cuda:0"
        yield sidecar


@pytest.fixture
def session(sidecar):
    with sidecar.session(**SETTINGS) as session:
        yield session


@pytest.fixture
def wanted(sidecar):
    """What two steps give whose rows are in host memory."""
    with sidecar.session(**SETTINGS) as session:
        steps = [session.step(*rows(seed)) for seed in (7, 8)]
    assert {r.memory for r in steps} == {"host"}
    return [(r.value, r.grad.tobytes()) for r in steps]


def test_same_bits_as_from_host_memory(sidecar, session, wanted):
    student, reference = rows()
    got, result = step(session, student, OnGPU(reference, stride=11))
    assert (got, result.memory, result.device, session.memory_note) == (wanted[0], "device", "cuda:0", "")
    student, reference = rows(8)  # one side in host memory, and the gradient, too
    out = np.empty(student.shape, np.float32)
    result = session.step(OnGPU(student), reference, out)
    assert ((result.value, out.tobytes()), result.memory) == (wanted[1], "device")
    result = session.step(OnGPU(student), OnGPU(reference), grad=False)
    assert (result.value, result.grad) == (wanted[1][0], None)
    result = session.step(student, OnGPU(reference))
    assert ((result.value, result.grad.tobytes()), result.memory) == (wanted[1], "device")
    for dtype in (np.float16, np.float64):  # more memory is taken for them
        student, reference = (x.astype(dtype) for x in rows(9, 70, 12, 10))
        want = session.step(student, reference, np.empty(student.shape, np.float32))
        got, result = step(session, student, OnGPU(reference))
        assert (got, result.memory) == ((want.value, want.grad.tobytes()), "device")
    few, other = rows(3, 20, 9, 7)  # which is left to the CPU
    want = session.step(few, other)
    got, result = step(session, few, OnGPU(other))
    assert (got, result.device) == ((want.value, want.grad.tobytes()), "cpu")


def test_waits_for_the_rows_alone(session, wanted, monkeypatch):
    """What is still to be done on the trainer's stream is awaited, within the step's time."""
    step(session, *rows())  # the memory is there now
    student, reference = OnGPU(rows(8)[0]), OnGPU(rows(8)[1])
    out = room(rows(8)[0])
    monkeypatch.setenv("SIMT_DELAY", "30")
    result = session.step(student, reference, out)
    monkeypatch.delenv("SIMT_DELAY")
    assert (result.value, out.numpy().tobytes()) == wanted[1]
    monkeypatch.setenv("SIMT_DELAY", "200")
    with pytest.raises(specalign.StepTimeoutError):
        session.step(student, reference, out, timeout=0.3)
    monkeypatch.delenv("SIMT_DELAY")
    result = session.step(student, reference, out)
    assert (result.value, result.memory, result.restarts) == (wanted[1][0], "device", 0)


def test_a_dead_sidecar_is_replaced(wanted, monkeypatch):
    with specalign.Sidecar(device="cuda", threads=1) as sidecar, sidecar.session(**SETTINGS) as session:

        def both(seed):
            student, reference = rows(seed)
            return step(session, student, OnGPU(reference))

        assert both(7)[0] == wanted[0]
        os.kill(sidecar.pid, signal.SIGKILL)
        got, result = both(8)
        assert (got, result.restarts, result.memory) == (wanted[1], 1, "device")
        # The next one opens nothing: the step that it finds on the GPU goes on through host memory.
        monkeypatch.setenv("SIMT_SHARE", "open")
        os.kill(sidecar.pid, signal.SIGKILL)
        got, result = both(8)
        assert (got, result.restarts, result.memory) == (wanted[1], 1, "host")
        assert "operation not supported" in session.memory_note
        assert both(7)[1].memory == "host"


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_lost_device(device, wanted, tmp_path, monkeypatch, caplog):
    """Another process takes the step over; where there is no GPU any more, `auto` goes on with the CPU."""
    lost = tmp_path / "lost"
    monkeypatch.setenv("SIMT_LOST", str(lost))
    student, reference = rows(8)
    with specalign.Sidecar(device=device, threads=1) as sidecar, sidecar.session(**SETTINGS) as session:
        step(session, *rows())
        lost.write_text("once")
        got, result = step(session, student, reference)
        assert (got, result.memory, result.device, result.restarts) == (wanted[1], "device", "cuda:0", 1)
        assert any("unspecified launch failure" in record.getMessage() for record in caplog.records)
        lost.write_text("gone")
        if device == "cuda":
            with pytest.raises(specalign.SidecarError, match="device is cuda, but the NVIDIA driver finds no GPU"):
                step(session, student, reference)
            return
        got, result = step(session, student, reference)
        assert (result.memory, result.device, result.restarts) == ("host", "cpu", 1)
        assert got[0] == pytest.approx(wanted[1][0], rel=1e-5)
        assert sidecar.hello.device_note
        assert session.memory_note == "the session runs on cpu"


@pytest.mark.parametrize(
    ("variable", "value", "trainer", "why"),
    [
        ("SIMT_SHARE", "export", True, "cuIpcGetMemHandle: operation not supported"),
        ("SIMT_SHARE", "open", False, "opening another process's memory: operation not supported"),
        ("SIMT_SHARE", "other", False, "other memory"),
        ("SIMT_UUID", "9", False, "and the rows are on GPU-07070707"),
    ],
)
def test_what_cannot_be_shared_goes_through_host_memory(variable, value, trainer, why, wanted, monkeypatch, caplog):
    if not trainer:
        monkeypatch.setenv(variable, value)
    with specalign.Sidecar(device="cuda", threads=1) as sidecar:
        if trainer:
            monkeypatch.setenv(variable, value)
        else:
            monkeypatch.delenv(variable)
        with caplog.at_level(logging.WARNING, "specalign"), sidecar.session(**SETTINGS) as session:
            for seed in (7, 8):
                student, reference = rows(seed)
                got, result = step(session, student, OnGPU(reference))
                assert (got, result.memory) == (wanted[seed - 7], "host")
            assert why in session.memory_note
        assert sum(why in record.getMessage() for record in caplog.records) == 1


def locked(pid):
    """Return how many KiB of a process are locked in memory, which the emulator does with what is pinned."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmLck:")))


def test_host_memory_is_pinned_in_the_sidecar(sidecar, wanted):
    before = locked(sidecar.pid)
    with sidecar.session(**SETTINGS) as session:
        session.step(*rows())
        assert locked(sidecar.pid) == before + session._stepper._arena.size // 1024
        session.step(*rows(9, 70, 12, 10))  # another arena
        assert locked(sidecar.pid) == before + session._stepper._arena.size // 1024
    with sidecar.session(device="cpu", **SETTINGS) as session:
        session.step(*rows())
        assert locked(sidecar.pid) == before


def test_host_memory_that_cannot_be_pinned(wanted, tmp_path, monkeypatch, caplog):
    fault = tmp_path / "fault"
    fault.write_text("pin")
    monkeypatch.setenv("SIMT_LOST", str(fault))
    monkeypatch.setenv("SPECALIGN_LOG", "info")
    with (
        caplog.at_level(logging.INFO, "specalign"),
        specalign.Sidecar(device="cuda", threads=1) as sidecar,
        sidecar.session(**SETTINGS) as session,
    ):
        result = session.step(*rows())
        assert ((result.value, result.grad.tobytes()), result.device) == (wanted[0], "cuda:0")
    assert any("the arena is not pinned" in record.getMessage() for record in caplog.records)


def test_a_session_on_the_cpu(sidecar, caplog):
    student, reference = rows()
    with sidecar.session(device="cpu", **SETTINGS) as session:
        want = session.step(student, reference)
        got, result = step(session, student, OnGPU(reference))
        assert (got, result.memory) == ((want.value, want.grad.tobytes()), "host")
        assert session.memory_note == "the session runs on cpu"
    assert not caplog.records


def test_nothing_is_left(sidecar):
    before, there = emulated(), emulated(sidecar.pid)
    with sidecar.session(**SETTINGS) as session:
        step(session, *rows())
        assert emulated() > before
        assert emulated(sidecar.pid) > there
    assert (emulated(), emulated(sidecar.pid)) == (before, there)
    session = sidecar.session(**SETTINGS)
    step(session, *rows())
    del session  # closed by the next one that opens
    with sidecar.session(**SETTINGS) as session:
        session.step(*rows())
    for _ in range(100):
        if (emulated(), emulated(sidecar.pid)) == (before, there):
            break
        signal.sigtimedwait([], 0.05)
    assert (emulated(), emulated(sidecar.pid)) == (before, there)


def test_a_fork_leaves_the_memory_alone(session, wanted):
    step(session, *rows())
    pid = os.fork()
    if pid == 0:
        try:
            session._stepper._device.close()
            _gpu.driver()
        except _gpu.Unavailable:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert step(session, *rows(8))[0] == wanted[1]


def test_wrong_arrays(session):
    student, reference = rows()
    there = OnGPU(student)
    with pytest.raises(specalign.InputError, match="give out"):
        session.step(there, reference)
    with pytest.raises(specalign.InputError, match="one of float32"):
        session.step(there, reference, OnGPU(student.astype(np.float64)))
    with pytest.raises(specalign.InputError, match="out has shape"):
        session.step(there, reference, room(reference))
    bad = student.copy()
    bad[5, 2] = np.nan
    with pytest.raises(specalign.InputError, match="row 5 of the student"):
        session.step(OnGPU(bad), reference, room(student))

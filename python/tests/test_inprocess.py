"""The engine in this process. What it has in common with a sidecar is tested with that, in test_session and others."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import SLOW, clustered

import specalign
from specalign import _inprocess, _library, _session

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def here():
    with specalign.Sidecar(device="cpu", threads=1, isolation="none") as sidecar:
        yield sidecar


def slots(state):
    """Take a session's state apart: its last step, and of both slots number, fingerprint and bytes."""
    magic, seq, size = struct.unpack_from("<8sQQ", state)
    assert magic == b"specstt1"
    found = []
    for at in (24, 24 + size):
        length, number, settings = struct.unpack_from("<12xIQQ", state, at)
        found.append((number, settings, state[at + 64 : at + 64 + length]))
    return seq, found


@pytest.mark.parametrize(
    "settings", [{"k": 3}, {"kernel": "gaussian", "k": 4, "approximation": "rff", "num_features": 64}]
)
def test_a_session_moves_between_the_routes_with_the_same_bits(sidecar, here, rng, settings):
    batches = [clustered(rng, 300, 40, 56) for _ in range(4)]
    with sidecar.session(**settings) as session:
        want = [session.step(*b) for b in batches[:2]]
        state = session.state()
        want += [session.step(*b) for b in batches[2:]]
    for first, second in ((sidecar, here), (here, sidecar), (here, here)):
        with first.session(**settings) as a, second.session(**settings) as b:
            got = [a.step(*batch) for batch in batches[:2]]
            assert slots(a.state()) == slots(state)
            b.restore(a.state())
            assert slots(b.state())[0] == b.steps == 2
            got += [b.step(*batch) for batch in batches[2:]]
        for r, w in zip(got, want, strict=True):
            assert (r.value, r.seq, r.products, r.route, r.sigma) == (w.value, w.seq, w.products, w.route, w.sigma)
            assert np.array_equal(r.grad, w.grad)
            assert np.array_equal(r.eigenvalues, w.eigenvalues)


def test_it_says_which_route_it_is(here, tmp_path):
    log = tmp_path / "log"
    with specalign.Sidecar(device="cpu", isolation="none", log=log) as sidecar:
        assert "in this process" in repr(sidecar)
        assert sidecar.pid == os.getpid()
        assert sidecar.status().mode == "in process"
        assert (sidecar.hello.version, sidecar.hello.device) == (specalign.__version__, "cpu")
        sidecar.session().close()
    assert f"in process {os.getpid()}: version={specalign.__version__} device=cpu" in log.read_text()
    assert "closed" in repr(sidecar)
    for use in (sidecar.session, sidecar.status):
        with pytest.raises(specalign.ClosedError, match="the sidecar is closed"):
            use()


def test_rows_and_gradient_are_used_where_they_lie(here, batch):
    """No copies of float32 rows; others are copied, and everything has the same bits."""
    student, reference = batch
    with here.session(k=3) as session:
        want = session.step(student, reference)
        assert not session._stepper._scratch.memory.nbytes
        wide = np.full((96, 100), np.nan, np.float32)
        wide[:, 7:47] = student
    variants = [(wide[:, 7:47], reference), (torch.from_numpy(wide)[:, 7:47], torch.from_numpy(reference))]
    variants += [(np.asfortranarray(student), reference[::-1].copy()[::-1]), (student.astype(">f4"), reference)]
    for s, t in variants:
        for out in (None, np.empty((96, 40), np.float32), torch.empty(96, 40), np.empty((40, 96)).T):
            with here.session(k=3) as session:
                r = session.step(s, t, out)
            assert r.value == want.value
            assert out is None or r.grad is out
            assert np.array_equal(np.asarray(r.grad, np.float32), want.grad)


def test_a_gradient_may_go_where_the_rows_are(here, batch):
    student, reference = (x.copy() for x in batch)
    with here.session(k=3) as session:
        want = session.step(student, reference)
    both = np.zeros((97, 40), np.float32)
    both[1:] = student
    for rows, out in ((both[1:], both[:-1]), (student, student)):
        with here.session(k=3) as session:
            r = session.step(rows, reference, out)
        assert np.array_equal(r.grad, want.grad)


def test_a_step_that_takes_too_long_never_was(here, rng, batch):
    big = clustered(rng, 2500, 256, 256)
    with here.session(**SLOW) as session, here.session(**SLOW) as other:
        before = session.step(*batch), other.step(*batch)
        failed = here.status().failed_steps
        for _ in range(3):
            with pytest.raises(specalign.StepTimeoutError, match=r"Step took longer than its time-out of 0\.05 s"):
                session.step(*big, timeout=0.05)
        assert here.status().failed_steps == failed + 3
        assert (session.steps, here.status().steps_under_way) == (1, 0)
        after = session.step(*batch), other.step(*batch)
    for a, b in (before, after):
        assert a.value == b.value
        assert np.array_equal(a.grad, b.grad)


@pytest.mark.parametrize("long", [False, True])
def test_ctrl_c_ends_a_step_that_never_was(here, rng, batch, long):
    """Also one that the main thread has begun to compute itself."""
    big = clustered(rng, 2500, 400, 400)
    with here.session(**SLOW) as session, here.session(**SLOW) as other:
        assert session.step(*batch).value == other.step(*batch).value
        if long:
            session._stepper._long_from = 0
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            session.step(*big)
        assert time.monotonic() - begin < 20
        timer.join()
        assert session.steps == 1
        a, b = session.step(*batch), other.step(*batch)
        assert a.value == b.value
        assert np.array_equal(a.grad, b.grad)


def test_a_step_that_was_interrupted_behind_its_end_is_repeated(here, batch):
    """The library has counted it, and this process has not."""
    with here.session(k=3) as session, here.session(k=3) as other:
        want = [other.step(*batch) for _ in range(3)]
        session.step(*batch)
        state = session.state()
        session.step(*batch)
        session._stepper.seq -= 1  # as an interrupt leaves it
        assert slots(session.state())[1][1] == slots(state)[1][1]  # of step 1
        got = [session.step(*batch) for _ in range(2)]
    for a, b in zip(got, want[1:], strict=True):
        assert (a.value, a.seq) == (b.value, b.seq)
        assert np.array_equal(a.grad, b.grad)


def test_other_signals_are_handled_during_a_long_step(here, rng):
    rows = clustered(rng, 1200, 100, 100)
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(here.status().steps_under_way))
    try:
        with here.session(**SLOW) as session:
            for _ in range(50):
                session._stepper._long_from = 0
                timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
                timer.start()
                session.step(*rows)
                timer.join()
                if 1 in seen:
                    break
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert 1 in seen


def test_closing_during_a_step_ends_it(here, rng, monkeypatch):
    monkeypatch.setattr(_session, "_CLOSE_TIMEOUT", 0.1)
    sessions = here.status().sessions
    session = here.session(**SLOW)
    future = session.submit(*clustered(rng, 2500, 400, 400))
    session.close()
    with pytest.raises(specalign.ClosedError, match="closed during a step"):
        future.result(30)
    assert here.status().sessions == sessions
    assert not session._stepper._scratch.memory.nbytes


def test_sessions_of_several_threads(here, rng):
    """Each has its own bits, whoever has the turn."""
    batches = [clustered(rng, 32 + 16 * i, 24, 32) for i in range(4)]

    def run(b):
        with here.session(k=2) as session:
            return [session.step(*b).value for _ in range(10)]

    want, got = [run(b) for b in batches], {}
    threads = [threading.Thread(target=lambda i=i: got.update({i: run(batches[i])})) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert [got[i] for i in range(4)] == want


def test_what_the_environment_asks_for_now(monkeypatch, batch):
    monkeypatch.setenv("SPECALIGN_ISA", "portable")
    with specalign.Sidecar(isolation="none") as sidecar, sidecar.session(threads=1) as session:
        assert session.step(*batch).isa == sidecar.hello.isa == "portable"
    monkeypatch.setenv("SPECALIGN_ISA", "cubic")
    with pytest.raises(specalign.InputError, match='SPECALIGN_ISA is "cubic"'):
        specalign.Sidecar(isolation="none")


def test_a_gpu_is_refused_as_by_a_sidecar(here, sidecar):
    with specalign.Sidecar(isolation="none") as auto:
        for device in ("cuda", "cuda:1"):
            said = []
            for owner in (auto, sidecar, here):
                with pytest.raises(specalign.InputError, match=f"device is {device}, but .*; give auto or cpu") as e:
                    owner.session(device=device)
                said.append(str(e.value))
            assert said[0] == said[1]
            assert 'device="cpu"' in said[2]


def test_a_library_that_is_not_there(tmp_path):
    program = tmp_path / "specalign"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(specalign.SidecarError, match=r"libspecalign\.so cannot be loaded: .*make library"):
        specalign.Sidecar(isolation="none", binary=program)


def test_the_interface_in_c_trusts_nobody(here, batch):
    """Whatever a caller gives is an error with a text, and the session goes on."""
    library = here._host._library
    student, reference = batch
    with here.session(k=3) as session:
        stepper = session._stepper
        want = session.step(*batch)

        def step(number=stepper._id, seq=2, out=None, **wrong):
            given = _inprocess._Step(seq=seq, gradient=out)
            for side, x in (("student", student), ("reference", reference)):
                address, near = specalign._session.Rows.of(x, side).place()
                setattr(given, side, _inprocess._Matrix(address, *x.shape, near, 1))
            for name, value in wrong.items():
                setattr(given.student, name, value)
            reply, error = _inprocess._Reply(), _library.Buffer()
            status = library.specalign_session_step(
                ctypes.c_uint64(number), ctypes.byref(given), ctypes.byref(reply), ctypes.byref(error)
            )
            return status, _library.taken(library, error).decode() if status else reply.value

        address = student.__array_interface__["data"][0]
        for wrong, status, text in (
            ({"number": 1 << 40}, 5, "closed"),
            ({"seq": 5}, 1, "step 5 was asked for after step 1; the next one is 2"),
            ({"seq": 0}, 1, "step 0"),
            ({"type": 9}, 2, "type 9, which is none"),
            ({"type": -1}, 2, "type -1, which is none"),
            ({"data": None}, 2, "the student is nowhere"),
            ({"data": address + 1}, 2, "where no number can be"),
            ({"rows": 0}, 2, "0 rows"),
            ({"rows": 1 << 40}, 2, "rows; give 1 to"),
            ({"rows": 95}, 2, "same samples"),
            ({"columns": -1}, 2, "-1 columns of the student"),
            ({"stride": 39}, 2, "40 columns and a stride of 39"),
            ({"stride": 1 << 62}, 2, "a stride of"),
            ({"out": address + 4}, 2, "the gradient overlaps the student"),
            ({"out": address + 2}, 2, "where no number can be"),
        ):
            got, said = step(**wrong)
            assert (got, said.count("\n")) == (status, 0), (wrong, said)
            assert text in said, (wrong, said)
        assert step(seq=1) == (0, want.value)  # the last one again
    error = _library.Buffer()
    assert library.specalign_session_close(ctypes.c_uint64(1 << 40), ctypes.byref(error)) == 5
    assert b"closed" in _library.taken(library, error)


def test_what_asks_for_a_stop_is_the_callers(here):
    """The library does not look at it after the call, when it may be gone: the process would end."""
    run(
        f"""
        import ctypes, specalign
        import numpy as np
        from specalign import _inprocess, _library
        libc = ctypes.CDLL(None)
        libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *4 * [ctypes.c_int]]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        sidecar = specalign.Sidecar(device="cpu", threads=1, isolation="none")
        session = sidecar.session()
        x = np.random.default_rng(0).standard_normal((8, 4)).astype("f4")
        rows = _inprocess._Matrix(x.ctypes.data, 8, 4, 4, 1)
        for seq in range(1, 101):
            page = libc.mmap(None, {mmap.PAGESIZE}, 3, {mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}, -1, 0)
            stop = ctypes.cast(page, ctypes.POINTER(ctypes.c_int32))
            step = _inprocess._Step(student=rows, reference=rows, seq=seq, stop=stop)
            sidecar._host.step(session._stepper._id, step, _inprocess._Reply(), 0)
            libc.munmap(page, {mmap.PAGESIZE})
        """
    )


def test_a_state_that_is_lost_is_no_state(here, batch):
    host = here._host
    with here.session(k=2) as session:
        assert host.state(session._stepper._id, 0)
        with pytest.raises(specalign.InputError, match="the last step is 0"):
            host.state(session._stepper._id, (1 << 64) - 1)
        for _ in range(3):
            session.step(*batch)
        before = host.state(session._stepper._id, 2)  # without the one before it
    number, _, _ = host.open('{"k": 2, "device": "cpu", "threads": 1}', before)
    with pytest.raises(specalign.InputError, match="the state after step 1 is lost"):
        host.state(number, 1)
    host.shut(number)


def test_the_environment_stays_as_it_is(monkeypatch, here):
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    monkeypatch.setenv("SPECALIGN_ISA", "portable")
    here.session().close()
    monkeypatch.delenv("SPECALIGN_ISA")
    here.session().close()
    assert libc.getenv(b"SPECALIGN_ISA") is None


def test_the_header_is_plain_c():
    text = '#include "specalign_session.h"\nint main(void) { return specalign_session_version() != 1; }'
    command = [
        "gcc",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-I",
        ROOT / "capi",
        "-fsyntax-only",
        "-x",
        "c",
        "-",
    ]
    subprocess.run(command, input=text, text=True, check=True, timeout=60)


def run(text):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_nothing_but_the_library_is_loaded():
    """No process, no socket, nothing on stdout; and the shards' steps refuse a fork, too."""
    out = run(
        """
        import os, subprocess
        import numpy as np
        import specalign, specalign.shards
        x = np.random.default_rng(0).standard_normal((64, 16)).astype("f4")
        def never(*a, **k): raise AssertionError("a process")
        subprocess.Popen.__init__ = never
        with specalign.Sidecar(isolation="none", device="cpu") as engine, engine.session(k=2) as session:
            print(session.step(x, x[:, :8]).converged)
        child = os.fork()
        if child == 0:
            try:
                specalign.shards.merge([b"x"])
            except specalign.ProcessError as e:
                os._exit("spawn" in str(e))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert out == "True\n1\n"


def test_the_interpreter_ends_during_a_step():
    out = run(
        """
        import numpy as np, specalign
        x = np.random.default_rng(0).standard_normal((3000, 400)).astype("f4")
        session = specalign.Sidecar(isolation="none").session(objective="schatten")
        session.submit(x, x[:, :300])
        print("end")
        """
    )
    assert out == "end\n"

"""Steps that end otherwise than in a result: by their time-out, Ctrl-C, their session's end. Others never notice."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from batches import SLOW, clustered

import specalign
from specalign import _session


def mapped_arenas(pid="self"):
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:specalign-arena")


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def alone():
    """A sidecar whose sessions can be counted: of a shared one, earlier tests may still be closing some."""
    with specalign.Sidecar(device="cpu") as sidecar:
        yield sidecar


def test_a_step_that_takes_too_long_never_was(alone, rng, batch):
    big = clustered(rng, 2500, 256, 256)
    with alone.session(**SLOW) as session, alone.session(**SLOW) as other:
        before = session.step(*batch), other.step(*batch)
        sessions, arenas, pid = alone.status().sessions, mapped_arenas(alone.pid), alone.pid
        for _ in range(3):
            with pytest.raises(specalign.StepTimeoutError, match=r"time-out of 0\.05 s"):
                session.step(*big, timeout=0.05)
        after = session.step(*batch), other.step(*batch)
        assert session.steps == 2
        wait_for(lambda: alone.status().sessions == sessions and mapped_arenas(alone.pid) == arenas)
        assert alone.pid == pid
        assert issubclass(specalign.StepTimeoutError, TimeoutError)
    for a, b in (before, after):
        assert a.value == b.value
        assert np.array_equal(a.grad, b.grad)


def test_a_session_that_failed_and_was_closed_leaves_nothing_in_the_sidecar(alone, rng):
    with alone.session(**SLOW) as session, pytest.raises(specalign.StepTimeoutError):
        session.step(*clustered(rng, 2500, 256, 256), timeout=0.05)
    wait_for(lambda: alone.status().sessions == 0)


@pytest.mark.parametrize("timeout", [0.0001, 0.001, 0.003, 0.01])
def test_a_deadline_ends_no_sidecar(sidecar, rng, timeout):
    big = clustered(rng, 1500, 256, 256)
    pid, restarts = sidecar.pid, 0
    with sidecar.session(**SLOW) as session:
        for _ in range(10):
            with pytest.raises(specalign.StepTimeoutError):
                session.step(*big, timeout=timeout)
        restarts = session.step(*big).restarts
    assert (sidecar.pid, restarts) == (pid, 0)


def test_closing_during_a_long_step_leaves_the_sidecar_to_the_others(sidecar, rng, batch, monkeypatch):
    monkeypatch.setattr(_session, "_CLOSE_TIMEOUT", 0.1)
    before = mapped_arenas()
    with sidecar.session(k=3) as other:
        other.step(*batch)
        pid = sidecar.pid
        for steps in (0, 1):
            session = sidecar.session(**SLOW)
            for _ in range(steps):
                session.step(*batch)
            future = session.submit(*clustered(rng, 1500, 400, 400))
            session.close()
            with pytest.raises(specalign.ClosedError, match="closed during a step"):
                future.result(30)
        assert other.step(*batch).restarts == 0
        assert sidecar.pid == pid
    wait_for(lambda: mapped_arenas() == before)


def test_a_session_that_the_sidecar_forgot_is_opened_again(sidecar, batch):
    with sidecar.session(k=3) as other, sidecar.session(k=3) as session:
        want = other.step(*batch), other.step(*batch)
        first, pid = session.step(*batch), sidecar.pid
        session._stepper._connection.close_session(session._stepper._id, 5)
        second = session.step(*batch)
        assert (second.restarts, sidecar.pid) == (1, pid)
    assert (first.value, second.value) == tuple(r.value for r in want)


def test_closing_unmaps(sidecar, batch):
    before = mapped_arenas()
    session = sidecar.session()
    session.step(*batch)
    assert mapped_arenas() == before + 1
    session.close()
    assert mapped_arenas() == before


def test_a_failed_step_is_computed_once(batch):
    bad = batch[0].copy()
    bad[2] = np.nan
    with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session() as session:
        session.step(*batch)
        for failed in (1, 2):
            with pytest.raises(specalign.InputError, match="row 2"):
                session.step(bad, batch[1])
            status = sidecar.status()
            assert (status.steps, status.failed_steps) == (1, failed)
        assert session.step(*batch).seq == 2


def test_the_doorbell_can_be_turned_off(batch, monkeypatch):
    monkeypatch.setenv("SPECALIGN_DOORBELL", "off")
    with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session() as session:
        assert session.step(*batch).seq == 1
        assert not sidecar._host.connection._idle


def test_the_doorbell_is_on_or_off(monkeypatch):
    monkeypatch.setenv("SPECALIGN_DOORBELL", "maybe")
    with pytest.raises(specalign.InputError, match="SPECALIGN_DOORBELL is 'maybe'; set it to on or off, or not at all"):
        specalign.Sidecar(device="cpu", threads=1)


class TestCtrlC:
    """What a KeyboardInterrupt may find anywhere."""

    def test_a_step_behind_another_one_is_taken_back(self, sidecar, rng):
        big = clustered(rng, 1200, 300, 300)
        with sidecar.session(**SLOW) as session:
            future = session.submit(*big)
            out = np.zeros_like(big[0])
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                session.step(*big, out)
            future.result(60)
            assert session.submit(*clustered(rng, 64, 16, 16)).result(60).seq == 2
            assert not out.any()

    @pytest.mark.parametrize("call", ["step", "submit"])
    @pytest.mark.parametrize("at", ["load", "_enqueue", "_check_open"])
    def test_it_leaves_the_session_usable(self, sidecar, batch, monkeypatch, call, at):
        with sidecar.session() as session:
            session.step(*batch)
            owner = session._stepper if at == "load" else session
            real = getattr(owner, at)

            def interrupted(*args):
                if at == "_enqueue":
                    real(*args)
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(owner, at, interrupted)
                with contextlib.suppress(KeyboardInterrupt):
                    getattr(session, call)(*batch)
            wait_for(lambda: not session._busy and not session._queue)
            assert session.submit(*batch).result(20).value > 0

    @pytest.mark.parametrize("call", ["step", "submit", "state"])
    @pytest.mark.parametrize("isolation", ["process", "none"])
    def test_it_may_come_at_the_entrance_of_every_function(self, batch, isolation, call):
        """Where Python looks whether a signal has come; in its own library, too."""
        entered = left = 0
        main = threading.main_thread()

        def trace(frame, event, arg):
            nonlocal left
            if threading.current_thread() is main:
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt

        with specalign.Sidecar(device="cpu", threads=1, isolation=isolation) as sidecar, sidecar.session() as session:
            session.step(*batch)
            done = False
            while not done:
                left = entered
                sys.settrace(trace)
                try:
                    getattr(session, call)(*() if call == "state" else batch)
                    done = left >= 0
                except KeyboardInterrupt:
                    entered += 1
                finally:
                    sys.settrace(None)
                assert session.submit(*batch).result(20).value > 0, f"after function {entered}"
                session.state()
        assert entered > 5

"""Death and replacement of sidecars, and the end of trainers; what is left behind: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from batches import SLOW, clustered
from faults import BINARY, gone, program, wait_gone

import specalign


class TestDeath:
    def steps(self, sidecar, batches, kill=()):
        results = []
        with sidecar.session(kernel="gaussian", k=4) as session:
            for i, b in enumerate(batches):
                if i in kill:
                    os.kill(sidecar.pid, signal.SIGKILL)
                results.append(session.step(*b))
        return results

    def test_a_killed_sidecar_changes_no_bit(self, rng, caplog):
        batches = [clustered(rng, 80, 24, 32) for _ in range(6)]
        with specalign.Sidecar(device="cpu", threads=1) as sidecar:
            want = self.steps(sidecar, batches)
            first = sidecar.pid
            got = self.steps(sidecar, batches, kill={0, 2, 5})
            assert sidecar.pid != first
        for a, b in zip(want, got, strict=True):
            assert a.value == b.value
            assert np.array_equal(a.eigenvalues, b.eigenvalues)
            assert np.array_equal(a.grad, b.grad)
        assert [r.restarts for r in got] == [1, 0, 1, 0, 0, 1]
        assert "SIGKILL" in caplog.text
        assert "replacing it (1 of 5)" in caplog.text

    def test_killed_in_the_middle_of_a_step(self, rng):
        big = clustered(rng, 1500, 128, 128)
        with specalign.Sidecar(device="cpu", threads=1) as sidecar:
            with sidecar.session(**SLOW) as session:
                want = session.step(*big)
            with sidecar.session(**SLOW) as session:
                future = session.submit(*big)
                time.sleep(min(0.1, want.seconds / 3))
                assert not future.done()
                os.kill(sidecar.pid, signal.SIGKILL)
                got = future.result(60)
        assert got.restarts == 1
        assert got.value == want.value
        assert np.array_equal(got.grad, want.grad)

    def test_several_sessions_survive(self, rng):
        batch = clustered(rng, 60, 16, 16)
        with specalign.Sidecar(device="cpu", threads=1) as sidecar:
            sessions = [sidecar.session(k=k) for k in (1, 2, 3)]
            want = [s.step(*batch).value for s in sessions]
            os.kill(sidecar.pid, signal.SIGKILL)
            futures = [s.submit(*batch) for s in sessions]
            assert [f.result(30).value for f in futures] == pytest.approx(want, rel=1e-5)

    def test_one_that_dies_for_ever_is_given_up(self, tmp_path, batch):
        flag = tmp_path / "broken"
        binary = program(
            tmp_path / "program", f'[ -e {flag} ] && {{ echo the disk is on fire >&2; exit 4; }}\nexec {BINARY} "$@"\n'
        )
        with specalign.Sidecar(device="cpu", binary=binary, max_restarts=2) as sidecar, sidecar.session() as session:
            want = session.step(*batch)
            flag.touch()
            os.kill(sidecar.pid, signal.SIGKILL)
            with pytest.raises(specalign.SidecarError, match="exit code 4") as e:
                session.step(*batch)
            assert e.value.stderr == ("the disk is on fire",)
            assert "on fire" in str(e.value)
            flag.unlink()
            got = session.step(*batch)  # and once it can start again, the session goes on
            assert got.seq == 2
            assert got.value == pytest.approx(want.value, rel=1e-5)

    def test_a_killed_trainer_leaves_nothing(self, home):
        program = """
            import numpy as np, specalign, time
            sidecar = specalign.Sidecar(device="cpu")
            session = sidecar.session()
            x = np.random.default_rng(0).standard_normal((64, 16)).astype("f4")
            session.step(x, x[:, :8])
            print(sidecar.pid, flush=True)
            while True:
                session.submit(x, x[:, :8])
                time.sleep(0.001)
        """
        trainer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
        try:
            pid = int(trainer.stdout.readline())
            assert not gone(pid)
        finally:
            trainer.kill()
            trainer.wait()
            trainer.stdout.close()
        assert wait_gone(pid, 1.0)
        deadline = time.monotonic() + 1
        while list(home.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not list(home.iterdir())

    def test_a_killed_sidecar_leaves_nothing(self, home, batch):
        with specalign.Sidecar(device="cpu") as sidecar:
            session = sidecar.session()
            session.step(*batch)
            first = list(home.iterdir())
            os.kill(sidecar.pid, signal.SIGKILL)
            session.step(*batch)
            second = list(home.iterdir())
            assert len(first) == len(second) == 1
            assert first != second
            os.kill(sidecar.pid, signal.SIGKILL)
        assert not list(home.iterdir())

    def test_what_both_left_goes_with_the_next_launch(self, home, batch):
        program = """
            import signal, os, specalign
            sidecar = specalign.Sidecar(device="cpu")
            print(sidecar.pid, flush=True)
            signal.pause()
        """
        trainer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
        pid = int(trainer.stdout.readline())
        trainer.send_signal(signal.SIGSTOP)  # so that it cannot clean up behind the sidecar, nor the sidecar behind it
        os.kill(pid, signal.SIGKILL)
        trainer.kill()
        trainer.wait()
        trainer.stdout.close()
        assert wait_gone(pid, 1.0)
        (stale,) = home.iterdir()
        (stale / "plugin456").touch()  # what go-plugin leaves that is killed before it listens
        (home / "specalign-sockets-file").touch()
        (home / "specalign-sockets-link").symlink_to(home)
        with specalign.Sidecar(device="cpu") as sidecar, specalign.Sidecar(device="cpu") as other:
            assert not stale.exists()
            assert len(list(home.iterdir())) == 4
            assert sidecar.session().step(*batch).value == other.session().step(*batch).value
        assert sorted(p.name for p in home.iterdir()) == ["specalign-sockets-file", "specalign-sockets-link"]
        for path in home.iterdir():
            path.unlink()

    @pytest.mark.parametrize("end", ["", "raise SystemExit(7)", "session.submit(x, x)", "sys.exit(0)"])
    def test_a_trainer_that_just_ends(self, home, end):
        program = f"""
            import sys, numpy as np, specalign
            sidecar = specalign.Sidecar(device="cpu")
            session = sidecar.session()
            x = np.random.default_rng(0).standard_normal((64, 16)).astype("f4")
            session.submit(x, x).result()
            print(sidecar.pid, flush=True)
            {end}
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == (7 if "7" in end else 0), done.stderr
        assert done.stderr == ""
        assert gone(int(done.stdout))
        assert not list(home.iterdir())

    def test_ctrl_c_in_a_step(self, rng):
        """The step is given up, the session goes on, and the sidecar did not get the signal."""
        import threading

        big, small = clustered(rng, 2500, 256, 256), clustered(rng, 40, 8, 8)
        with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(**SLOW) as session:
            pid = sidecar.pid
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                session.step(*big)
            assert session.step(*small).seq == 1
            assert sidecar.pid == pid

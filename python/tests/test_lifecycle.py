"""Start, death, replacement and end of sidecars; what is left behind: nothing."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from batches import clustered

import specalign
from specalign import _binary
from specalign._process import Lines, Stream

BINARY = os.environ["SPECALIGN_BINARY"]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie is gone: its reaper is not ours.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_gone(pid, seconds):
    deadline = time.monotonic() + seconds
    while not gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def tmpdir_env(tmp_path, monkeypatch):
    """A temporary directory of our own, short enough for sockets, that must be empty in the end."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sa") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield Path(name)
        monkeypatch.setattr("tempfile.tempdir", None)


def script(tmp_path, text):
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class TestStart:
    def test_it_says_what_it_is(self):
        with specalign.Sidecar(device="cpu") as sidecar:
            h = sidecar.hello
            assert h.pid == sidecar.pid == sidecar._host.process.pid
            assert h.protocol_major == 1
            assert h.version
            assert str(h.pid) in repr(sidecar)
            status = sidecar.status()
            assert status.mode == "launched"
            assert status.hello.pid == h.pid
        assert "closed" in repr(sidecar)
        assert gone(h.pid)

    def test_nothing_is_left_behind(self, tmpdir_env, batch):
        with specalign.Sidecar(device="cpu") as sidecar:
            assert [stat.S_IMODE(p.stat().st_mode) for p in tmpdir_env.iterdir()] == [0o700]
            sidecar.session().step(*batch)
            pid, began = sidecar.pid, time.monotonic()
        assert time.monotonic() - began < 2  # it heeds Shutdown; no signal is needed
        assert gone(pid)
        assert not list(tmpdir_env.iterdir())
        sidecar.close()
        with pytest.raises(specalign.ClosedError):
            sidecar.session()

    def test_dropped_without_close(self, tmpdir_env, batch):
        sidecar = specalign.Sidecar(device="cpu")
        session = sidecar.session()
        session.submit(*batch).result(30)
        pid = sidecar.pid
        del sidecar
        assert not gone(pid)
        session.step(*batch)  # a session keeps its sidecar
        deadline = time.monotonic() + 20
        del session
        while not gone(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert gone(pid)

    def test_inherited_plugin_variables_do_no_harm(self, monkeypatch, batch):
        monkeypatch.setenv("PLUGIN_UNIX_SOCKET_DIR", "/nonexistent")
        monkeypatch.setenv("PLUGIN_MULTIPLEX_GRPC", "true")
        monkeypatch.setenv("PLUGIN_PROTOCOL_VERSIONS", "99")
        monkeypatch.setenv("PLUGIN_CLIENT_CERT", "nonsense")
        with specalign.Sidecar(device="cpu") as sidecar:
            assert sidecar.session().step(*batch).converged

    def test_a_temporary_directory_that_is_too_long(self, tmp_path, monkeypatch, batch):
        folder = tmp_path / ("x" * 90)
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
        monkeypatch.setattr("tempfile.tempdir", None)
        with specalign.Sidecar(device="cpu") as sidecar:
            assert sidecar.session().step(*batch).converged
        assert not list(folder.iterdir())

    def test_no_program(self, monkeypatch, tmp_path):
        monkeypatch.setattr(_binary, "BUNDLED", tmp_path / "none")
        monkeypatch.setenv("SPECALIGN_BINARY", "")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(specalign.SidecarError, match="make build"):
            specalign.Sidecar()
        monkeypatch.setenv("SPECALIGN_BINARY", str(tmp_path / "typo"))
        with pytest.raises(specalign.SidecarError, match=r"SPECALIGN_BINARY is '.*typo'"):
            specalign.Sidecar()
        monkeypatch.setenv("SPECALIGN_BINARY", "")
        (tmp_path / "specalign").symlink_to(BINARY)
        with specalign.Sidecar(device="cpu") as sidecar:
            assert sidecar.pid

    @pytest.mark.parametrize(
        ("text", "error", "match"),
        [
            (
                "echo one >&2; echo two >&2; exit 3",
                specalign.SidecarError,
                "before it was ready.*exit code 3(.|\n)*one\n *two",
            ),
            ("exit 0", specalign.SidecarError, "before it was ready.*exit code 0"),
            ("kill -9 $$", specalign.SidecarError, "SIGKILL"),
            ("echo hello; sleep 60", specalign.ProtocolError, "no handshake.*hello"),
            ("echo '1|7|unix|/x|grpc|'; sleep 60", specalign.ProtocolError, "version 7, this package version 1"),
            ("echo '1|1|tcp|1.2.3.4:5|grpc|'; sleep 60", specalign.ProtocolError, "not understood"),
            ("echo '1|1|unix|/nonexistent|grpc|'; sleep 60", specalign.SidecarError, "does not answer"),
            ("yes | tr -d '\\n'", specalign.ProtocolError, "no handshake|first output"),
            ("sleep 60", specalign.SidecarError, "launch time-out"),
        ],
    )
    def test_programs_that_are_no_sidecar(self, tmp_path, tmpdir_env, text, error, match):
        began = time.monotonic()
        with pytest.raises(specalign.Error, match=match) as e:
            specalign.Sidecar(binary=script(tmp_path, text), launch_timeout=1.5)
        assert isinstance(e.value, error) or "first output" in str(e.value)
        assert time.monotonic() - began < 10
        assert not list(tmpdir_env.iterdir())

    def test_a_program_that_cannot_be_executed(self, tmp_path):
        path = tmp_path / "program"
        path.write_bytes(b"\x7fELF nonsense")
        path.chmod(0o755)
        with pytest.raises(specalign.SidecarError, match="could not be started"):
            specalign.Sidecar(binary=path)


class TestLog:
    def test_lines_arrive_whole_with_their_level(self, caplog):
        lines = Lines(None)
        out, err = Stream(lines), Stream(lines)
        with caplog.at_level(logging.DEBUG, "specalign.sidecar"):
            err.feed(b'2026-01-01T00:00:00Z [WARN]  specalign: slow\n{"@level":"err')
            out.feed(b"from else")
            err.feed(b'or","@message":"bad"}\nplain\nrest')
            err.flush()
            out.feed(b"where\n")
        assert [r.levelno for r in caplog.records] == [30, 40, 20, 20, 20]
        assert lines.tail()[-3:] == ("plain", "rest", "from elsewhere")

    def test_neither_a_bad_sink_nor_an_endless_line_stops_it(self, caplog):
        def sink(line):
            raise RuntimeError

        lines = Lines(sink)
        stream = Stream(lines)
        for _ in range(1000):
            stream.feed(b"x" * 1000)
        assert all(len(line) <= 2000 for line in lines.tail())
        assert len(lines.tail()) == 20

    def test_a_flood_of_log_output_does_not_hang_it(self, tmp_path, batch):
        """Every refused step is logged at debug level: well over 64 KiB in the end."""
        path = tmp_path / "log"
        os.environ["SPECALIGN_LOG"] = "trace"
        try:
            with specalign.Sidecar(device="cpu", log=path) as sidecar:
                for i in range(400):
                    with pytest.raises(specalign.InputError):
                        sidecar.session(**{"unknown_" + "x" * 200: i})
                assert sidecar.session().step(*batch).converged
        finally:
            del os.environ["SPECALIGN_LOG"]
        assert path.stat().st_size > 1 << 16


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
            with sidecar.session(objective="schatten") as session:
                want = session.step(*big)
            with sidecar.session(objective="schatten") as session:
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
        program = script(
            tmp_path, f'[ -e {flag} ] && {{ echo the disk is on fire >&2; exit 4; }}\nexec {BINARY} "$@"\n'
        )
        with specalign.Sidecar(device="cpu", binary=program, max_restarts=2) as sidecar, sidecar.session() as session:
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

    def test_a_killed_trainer_leaves_nothing(self, tmpdir_env):
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
        while list(tmpdir_env.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not list(tmpdir_env.iterdir())

    def test_a_killed_sidecar_leaves_nothing(self, tmpdir_env, batch):
        with specalign.Sidecar(device="cpu") as sidecar:
            session = sidecar.session()
            session.step(*batch)
            first = list(tmpdir_env.iterdir())
            os.kill(sidecar.pid, signal.SIGKILL)
            session.step(*batch)
            second = list(tmpdir_env.iterdir())
            assert len(first) == len(second) == 1
            assert first != second
            os.kill(sidecar.pid, signal.SIGKILL)
        assert not list(tmpdir_env.iterdir())

    def test_what_both_left_goes_with_the_next_launch(self, tmpdir_env, batch):
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
        (stale,) = tmpdir_env.iterdir()
        (tmpdir_env / "specalign-sockets-file").touch()
        (tmpdir_env / "specalign-sockets-link").symlink_to(tmpdir_env)
        with specalign.Sidecar(device="cpu") as sidecar, specalign.Sidecar(device="cpu") as other:
            assert not stale.exists()
            assert len(list(tmpdir_env.iterdir())) == 4
            assert sidecar.session().step(*batch).value == other.session().step(*batch).value
        assert sorted(p.name for p in tmpdir_env.iterdir()) == ["specalign-sockets-file", "specalign-sockets-link"]

    @pytest.mark.parametrize("end", ["", "raise SystemExit(7)", "session.submit(x, x)", "sys.exit(0)"])
    def test_a_trainer_that_just_ends(self, tmpdir_env, end):
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
        assert not list(tmpdir_env.iterdir())

    def test_ctrl_c_in_a_step(self, rng):
        """The step is given up, the session goes on, and the sidecar did not get the signal."""
        import threading

        big, small = clustered(rng, 2500, 256, 256), clustered(rng, 40, 8, 8)
        with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(objective="schatten") as session:
            pid = sidecar.pid
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                session.step(*big)
            assert session.step(*small).seq == 1
            assert sidecar.pid == pid


class TestAttach:
    @pytest.fixture
    def daemon(self, tmpdir_env):
        attach = tmpdir_env / "attach.json"
        daemons = []

        def start():
            daemon = subprocess.Popen([BINARY, "serve", "--daemon", "--attach", str(attach)], stderr=subprocess.DEVNULL)
            daemons.append(daemon)
            deadline = time.monotonic() + 10
            while not attach.exists():
                assert daemon.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return daemon

        yield attach, start
        for daemon in daemons:
            daemon.terminate()
            daemon.wait(10)

    def test_it_outlives_its_clients(self, daemon, batch):
        attach, start = daemon
        process = start()
        values = []
        for _ in range(2):
            with specalign.Sidecar.attach(attach) as sidecar:
                assert sidecar.pid == process.pid
                assert sidecar.status().mode == "daemon"
                values.append(sidecar.session().step(*batch).value)
        assert process.poll() is None
        assert values[0] == values[1]

    def test_another_daemon_takes_over(self, daemon, rng):
        attach, start = daemon
        process = start()
        batches = [clustered(rng, 64, 16, 16) for _ in range(4)]
        with specalign.Sidecar.attach(attach) as sidecar:
            with sidecar.session(k=2) as session:
                want = [session.step(*b) for b in batches]
            with sidecar.session(k=2) as session:
                got = [session.step(*b) for b in batches[:2]]
                process.terminate()
                process.wait(10)
                assert not attach.exists()
                start()
                got += [session.step(*b) for b in batches[2:]]
        for a, b in zip(want, got, strict=True):
            assert a.value == b.value
            assert np.array_equal(a.grad, b.grad)

    def test_files_that_are_none(self, tmp_path):
        with pytest.raises(specalign.SidecarError, match="No such file"):
            specalign.Sidecar.attach(tmp_path / "none")
        (tmp_path / "bad").write_text("{}")
        with pytest.raises(specalign.SidecarError, match="no attach file"):
            specalign.Sidecar.attach(tmp_path / "bad")

    def test_other_versions_and_absent_daemons(self, daemon, tmp_path):
        import json

        attach, start = daemon
        start()
        content = json.loads(attach.read_text())
        other = tmp_path / "other"
        other.write_text(json.dumps({**content, "protocol_major": 9}))
        with pytest.raises(specalign.ProtocolError, match="version 9, this package version 1"):
            specalign.Sidecar.attach(other)
        other.write_text(json.dumps({**content, "socket": "/nonexistent"}))
        with pytest.raises(specalign.SidecarError, match="no daemon answers"):
            specalign.Sidecar.attach(other)

    @pytest.mark.parametrize("change", [{"start_time": 1}, {"boot": "another"}, {"pid": 1 << 22}])
    def test_a_daemon_that_has_ended(self, daemon, tmp_path, change):
        import json

        attach, start = daemon
        start()
        content = json.loads(attach.read_text()) | change
        (tmp_path / "old.json").write_text(json.dumps(content))
        (tmp_path / "old.json").chmod(0o600)
        with pytest.raises(specalign.SidecarError, match=r"daemon \d+ that .* names has ended"):
            specalign.Sidecar.attach(tmp_path / "old.json")

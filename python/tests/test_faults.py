"""What may happen to a sidecar, to its host and to the machine, and what a user then sees (docs/faults.md)."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from batches import clustered

import specalign
from specalign import _sidecar

BINARY = os.environ["SPECALIGN_BINARY"]
NOBODY = 65534
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user, or mount")

HEAD = """
import os, signal, sys, threading, time
import numpy as np
import specalign
x = np.random.default_rng(0).standard_normal((64, 16)).astype("f4")
y = np.random.default_rng(1).standard_normal((64, 8)).astype("f4")
"""


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    """A short temporary directory for sockets that must be empty in the end."""
    tmp_path_factory.getbasetemp()  # elsewhere
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sa") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield Path(name)
        assert not list(Path(name).iterdir())
        monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def want(batch):
    """The results of three steps that nothing disturbs."""
    with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(k=3) as session:
        return [session.step(*batch) for _ in range(3)]


def same(a, b):
    return a.value == b.value and np.array_equal(a.eigenvalues, b.eigenvalues) and np.array_equal(a.grad, b.grad)


def crash(pid, number):
    """Send a signal that ends a process, and wait for its end: it first says much."""
    os.kill(pid, number)
    fd = os.pidfd_open(pid)
    select.select([fd], [], [], 10)
    os.close(fd)


def program(path, text):
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def trainer(text, prefix=(), **options):
    """Start a Python that runs `text` after HEAD."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", HEAD + textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def compile_c(folder, text):
    """Compile a shared library to be loaded before libc."""
    (folder / "shim.c").write_text(textwrap.dedent(text))
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


@contextlib.contextmanager
def daemon(folder, *flags, binary=BINARY):
    attach = folder / "attach.json"
    process = subprocess.Popen([binary, "serve", "--daemon", "--attach", attach, *flags], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not attach.exists() or json.loads(attach.read_text())["pid"] != process.pid:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield attach, process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)


class TestHung:
    def test_a_stopped_sidecar_is_replaced(self, home, batch, want, monkeypatch):
        monkeypatch.setattr(_sidecar, "_ALIVE_TIMEOUT", 0.3)
        with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(k=3) as session:
            assert same(session.step(*batch), want[0])
            stopped = sidecar.pid
            os.kill(stopped, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(specalign.StepTimeoutError, match="answers nothing else, either: the next step takes"):
                session.step(*batch, timeout=0.3)
            assert time.monotonic() - began < 5
            assert same(session.step(*batch), want[1])
            assert sidecar.pid != stopped
            assert same(session.step(*batch), want[2])

    def test_a_sidecar_that_was_stopped_for_a_while(self, batch, want):
        with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(k=3) as session:
            session.step(*batch)
            os.kill(sidecar.pid, signal.SIGSTOP)
            threading.Timer(0.5, os.kill, (sidecar.pid, signal.SIGCONT)).start()
            got = session.step(*batch)
            assert got.restarts == 0
            assert same(got, want[1])

    def test_a_stopped_daemon(self, home, batch, monkeypatch):
        monkeypatch.setattr(_sidecar, "_ALIVE_TIMEOUT", 0.3)
        with daemon(home) as (attach, process), specalign.Sidecar.attach(attach) as sidecar:
            session = sidecar.session()
            first = session.step(*batch)
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(specalign.StepTimeoutError, match="answers nothing else"):
                session.step(*batch, timeout=0.3)
            process.send_signal(signal.SIGCONT)
            assert session.step(*batch).seq == first.seq + 1
            session.close()

    def test_steps_that_took_too_long_leave_no_sessions(self, sidecar, rng, batch):
        big = clustered(rng, 600, 64, 64)
        before = sidecar.status().sessions
        with sidecar.session(objective="schatten") as session:
            for _ in range(70):  # more than a process may have
                with contextlib.suppress(specalign.StepTimeoutError):
                    session.step(*big, timeout=0.002)
            assert session.step(*batch).converged
        assert sidecar.status().sessions <= before

    def test_a_stopped_host_does_not_stop_others(self, home):
        text = """
            sidecar = specalign.Sidecar.attach(sys.argv[1])
            session = sidecar.session(threads=1)
            values = [session.step(x, y).value]
            print("ready", flush=True)
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                values.append(session.step(x, y).value)
            print("ok", len(values) > 1 and max(values) - min(values) < 1e-5 * max(values))
        """
        with daemon(home) as (attach, _):
            command = [sys.executable, "-c", HEAD + textwrap.dedent(text), attach]
            host = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert host.stdout.readline() == "ready\n"
            host.send_signal(signal.SIGSTOP)
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            assert done.stdout == "ready\nok True\n"
            host.send_signal(signal.SIGCONT)
            assert host.communicate(timeout=30)[0] == "ok True\n"


class TestCrash:
    @pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL])
    def test_signals_of_a_crash(self, home, batch, want, caplog, number):
        """What ends a process that crashes in C, and what the Go runtime does when it gives up."""
        with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(k=3) as session:
            assert same(session.step(*batch), want[0])
            crash(sidecar.pid, number)
            got = session.step(*batch)
            assert same(got, want[1])
            assert got.restarts == 1
        assert "exit code 2" in caplog.text
        assert "replacing it (1 of 5)" in caplog.text

    def test_a_segmentation_fault_in_c(self, home, tmp_path, rng, caplog):
        """In the middle of a step: the allocator that the kernels call writes to address 8."""
        flag = tmp_path / "now"
        shim = compile_c(
            tmp_path,
            f"""
            #include <errno.h>
            #include <stdlib.h>
            #include <unistd.h>
            void *memalign(size_t, size_t);
            int posix_memalign(void **p, size_t a, size_t n) {{
              if (!unlink("{flag}")) *(volatile int *)8 = 1;
              return (*p = memalign(a, n)) ? 0 : ENOMEM;
            }}
            """,
        )
        binary = program(tmp_path / "specalign", f'LD_PRELOAD={shim} exec {BINARY} "$@"\n')
        small, large = clustered(rng, 40, 8, 8), clustered(rng, 300, 80, 90)
        with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session() as session:
            wanted = [session.step(*small), session.step(*large)]
        with specalign.Sidecar(device="cpu", threads=1, binary=binary) as sidecar, sidecar.session() as session:
            assert same(session.step(*small), wanted[0])
            flag.touch()
            got = session.step(*large)
            assert not flag.exists()
            assert got.restarts == 1
            assert same(got, wanted[1])
        assert "exit code 2" in caplog.text

    def test_its_last_words_are_in_the_error(self, home, batch):
        with specalign.Sidecar(device="cpu", threads=1, max_restarts=0) as sidecar, sidecar.session() as session:
            session.step(*batch)
            crash(sidecar.pid, signal.SIGSEGV)
            with pytest.raises(specalign.SidecarError, match=r"is gone(.|\n)*exit code 2(.|\n)*last words") as e:
                session.step(*batch)
            assert e.value.stderr

    def test_a_program_that_does_not_ignore_sigpipe(self, home):
        out, err = trainer(
            """
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            sidecar = specalign.Sidecar(device="cpu")
            session = sidecar.session()
            session.step(x, y)
            os.kill(sidecar.pid, signal.SIGKILL)
            print(session.step(x, y).restarts)
            sidecar.close()
            """
        ).communicate(timeout=60)
        assert out == "1\n", err


class TestMemory:
    @pytest.mark.parametrize("settings", [{"objective": "relational_kl"}, {"kernel": "gaussian"}])
    def test_a_limit_of_the_process(self, home, rng, batch, settings):
        """The step fails; neither the sidecar nor the session does."""
        big = clustered(rng, 8000, 4, 4)  # matrices of 244 MiB
        with (
            specalign.Sidecar(device="cpu", threads=1) as sidecar,
            sidecar.session(approximation="exact", **settings) as session,
        ):
            session.step(*batch)
            pid = sidecar.pid
            size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            resource.prlimit(pid, resource.RLIMIT_AS, (size + (100 << 20), resource.RLIM_INFINITY))
            with pytest.raises(specalign.SidecarError, match="no memory"):
                session.step(*big)
            got = session.step(*batch)
            assert (got.seq, got.restarts, sidecar.pid) == (2, 0, pid)

    def test_too_little_to_start(self, home, tmp_path):
        binary = program(tmp_path / "specalign", f'ulimit -v 100000; exec {BINARY} "$@"\n')
        with pytest.raises(specalign.SidecarError, match=r"before it was ready \(exit code 2\)") as e:
            specalign.Sidecar(device="cpu", binary=binary)
        assert e.value.stderr

    @root
    def test_the_kernel_kills_it(self, home, tmp_path, rng, batch, caplog):
        """A control group whose limit only the sidecar is under; its successor is under none."""
        group = self.group(96 << 20)
        try:
            big = clustered(rng, 3000, 4, 4)
            with specalign.Sidecar(device="cpu", threads=1) as sidecar:
                with sidecar.session(objective="relational_kl") as session:
                    session.step(*batch)
                    (group / "cgroup.procs").write_text(str(sidecar.pid))
                    got = session.step(*big)
                    assert got.restarts == 1
                with sidecar.session(objective="relational_kl") as session:
                    session.step(*batch)
                    assert same(session.step(*big), got)
            assert "SIGKILL" in caplog.text
        finally:
            group.rmdir()

    def group(self, size):
        for base, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            group = Path(base) / f"specalign-test-{os.getpid()}"
            with contextlib.suppress(OSError):
                group.mkdir()
                if (group / limit).exists():
                    (group / limit).write_text(str(size))
                    return group
                group.rmdir()
        pytest.skip("no control group for memory can be made here")

    def test_no_memory_for_an_arena(self, home):
        out, err = trainer(
            """
            import resource
            with specalign.Sidecar(device="cpu") as sidecar, sidecar.session() as session:
                first = session.step(x, y)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                try:
                    session.step(np.ones((4000, 100), "f4"), np.ones((4000, 100), "f4"))
                except specalign.Error as e:
                    print(e)
                print(session.step(x, y).seq == first.seq + 1)
            """
        ).communicate(timeout=60)
        message, going_on = out.splitlines()
        assert "no shared memory of 4.7 MiB for a session: File too large" in message, (out, err)
        assert going_on == "True"


class TestSocket:
    def test_deleted(self, home, batch, want):
        with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(k=3) as session:
            assert same(session.step(*batch), want[0])
            os.unlink(sidecar._host.connection.address)
            assert same(session.step(*batch), want[1])
            assert session.submit(*batch).result(30).restarts == 0
            others = [sidecar.session(k=3) for _ in range(3)]
            futures = [s.submit(*batch) for s in others]
            assert all(same(f.result(30), want[0]) for f in futures)
            os.kill(sidecar.pid, signal.SIGKILL)
            assert session.step(*batch).restarts == 1

    def test_of_a_daemon_deleted(self, home, batch):
        with daemon(home) as (attach, _), specalign.Sidecar.attach(attach) as sidecar:
            session = sidecar.session()
            session.step(*batch)
            os.unlink(json.loads(attach.read_text())["socket"])
            session.step(*batch)
            with pytest.raises(specalign.SidecarError, match=r"no daemon answers.*No such file"):
                specalign.Sidecar.attach(attach)
            session.close()


class TestAttachFile:
    """Files that are not what a daemon of ours wrote; `specalign doctor` reads them, too."""

    def refused(self, attach, match):
        with pytest.raises(specalign.SidecarError, match=match):
            specalign.Sidecar.attach(attach)
        done = subprocess.run([BINARY, "doctor", "--attach", attach], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert done.stderr == "specalign: doctor: 1 check failed\n"
        return done.stdout

    def test_stale(self, home, batch):
        with daemon(home) as (attach, process):
            content = attach.read_text()
            process.kill()
            process.wait()
        attach.write_text(content)
        attach.chmod(0o600)
        assert "has ended" in self.refused(attach, f"the daemon {process.pid} that .* has ended")
        with daemon(home) as (attach, _), specalign.Sidecar.attach(attach) as sidecar:
            assert sidecar.session().step(*batch).converged

    def test_forged(self, home, tmp_path):
        with daemon(home) as (attach, process):
            content = json.loads(attach.read_text())
            other = tmp_path / "other"
            start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
            other.write_text(json.dumps({**content, "pid": os.getpid(), "start_time": start}))
            other.chmod(0o600)
            self.refused(other, f"process {process.pid} listens, not the daemon {os.getpid()}")
            other.write_text(attach.read_text())
            other.chmod(0o666)
            assert "may be written by others" in self.refused(other, "may be written by others")
            other.unlink()
            os.mkfifo(other, 0o600)
            assert "is no file" in self.refused(other, "is no file")
            other.unlink()
            other.write_text("[" * 100000)
            other.chmod(0o600)
            assert "no attach file" in self.refused(other, "no attach file")

    @root
    def test_of_another_user(self, home, tmp_path):
        with daemon(home) as (attach, _):
            other = tmp_path / "other"
            other.write_text(attach.read_text())
            other.chmod(0o600)
            os.chown(other, NOBODY, NOBODY)
            assert "another user's" in self.refused(other, f"another user's \\({NOBODY}\\)")

    @root
    def test_another_user_listens(self, home, tmp_path):
        """A file of ours, but somebody else put a socket where it points."""
        home.chmod(0o755)
        folder = home / "open"
        folder.mkdir()
        folder.chmod(0o777)
        text = """if True:
            import socket, sys
            s = socket.socket(socket.AF_UNIX)
            s.bind(sys.argv[1])
            s.listen()
            print(flush=True)
            sys.stdin.read()
        """
        listener = subprocess.Popen(
            ["/usr/bin/env", "python3", "-c", text, folder / "s"],
            user=NOBODY,
            group=NOBODY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert listener.stdout.readline() == b"\n"
            with daemon(home) as (attach, _):
                content = json.loads(attach.read_text())
            other = tmp_path / "other"
            start = Path(f"/proc/{listener.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
            other.write_text(
                json.dumps({**content, "pid": listener.pid, "start_time": int(start), "socket": str(folder / "s")})
            )
            other.chmod(0o600)
            assert f"of user {NOBODY}" in self.refused(other, f"a process of user {NOBODY} listens")
        finally:
            listener.communicate()
            shutil.rmtree(folder)


@root
class TestOtherUser:
    def connect(self, address, cwd):
        text = """
            import socket, sys
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(sys.argv[1])
                s.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + b"\\0\\0\\0\\4\\0\\0\\0\\0\\0")
                print("closed" if s.recv(100) == b"" else "let in")
            except OSError as e:
                print(e.strerror)
        """
        command = ["/usr/bin/env", "python3", "-c", textwrap.dedent(text), address]
        options = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
        return subprocess.run(command, capture_output=True, text=True, timeout=30, **options).stdout.strip()

    def test_cannot_get_there_and_is_refused(self, home, batch):
        with daemon(home) as (attach, _), specalign.Sidecar.attach(attach) as sidecar:
            address = json.loads(attach.read_text())["socket"]
            assert self.connect(address, home) == "Permission denied"
            folder = Path(address).parent
            for path, mode in ((home, 0o755), (folder, 0o755), (Path(address), 0o777)):
                path.chmod(mode)  # as if somebody had opened what is closed
            assert self.connect(address, home) in ("closed", "Connection reset by peer", "Broken pipe")
            assert sidecar.session().step(*batch).converged
            folder.chmod(0o700)

    def test_nothing_is_readable_for_others(self, home):
        with daemon(home) as (attach, _):
            paths = [attach, *home.rglob("specalign-*")]
            assert len(paths) == 2
            assert all(p.stat().st_mode & 0o077 == 0 for p in paths)
            old = os.umask(0)
            try:
                with specalign.Sidecar(device="cpu") as sidecar:
                    folder = Path(sidecar._host.connection.address).parent
                    assert folder.stat().st_mode & 0o077 == 0
            finally:
                os.umask(old)


class TestSessions:
    def test_sixty_four_at_once(self, rng):
        batches = [clustered(rng, 20 + i % 7, 8, 6) for i in range(64)]
        with specalign.Sidecar(device="cpu", threads=1) as sidecar:
            wanted = []
            for b in batches[:8]:
                with sidecar.session(k=2) as session:
                    wanted.append(session.step(*b))
            sessions = [sidecar.session(k=2) for _ in batches]
            with pytest.raises(specalign.SidecarError, match=r"64 sessions open \(limit 64\).*close some"):
                sidecar.session()
            for _ in range(3):
                futures = [s.submit(*b) for s, b in zip(sessions, batches, strict=True)]
                results = [f.result(60) for f in futures]
            assert sidecar.status().steps == 8 + 3 * 64
            assert [r.seq for r in results] == [3] * 64
            for a, b in zip(results, wanted, strict=False):
                assert a.value == pytest.approx(b.value, rel=1e-5)
            sessions[5].close()
            assert sidecar.session().step(*batches[0]).converged


@root
class TestTemporaryFolder:
    """Mounts that only the child sees."""

    def run(self, mount, text):
        child = trainer(text, prefix=["unshare", "--mount", "sh", "-ec", f'{mount}\nexec "$@"', "sh"])
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        return out

    STEP = """
        with specalign.Sidecar(device="cpu") as sidecar:
            print(os.path.dirname(os.path.dirname(sidecar._host.connection.address)), sidecar.session().step(x, y).seq)
    """

    @pytest.mark.parametrize("options", ["ro", "size=4k,nr_inodes=1"], ids=["read-only", "full"])
    def test_another_one_is_taken(self, tmp_path, options):
        mount = f"mount -t tmpfs -o {options} none {tmp_path}; export TMPDIR={tmp_path} XDG_RUNTIME_DIR={tmp_path}"
        assert self.run(mount, self.STEP) == "/tmp 1\n"

    def test_all_are_read_only(self):
        mount = "for d in / /tmp; do mount --bind $d $d; mount -o remount,bind,ro $d; done; cd /proc"
        out = self.run(
            mount,
            """
            try:
                specalign.Sidecar(device="cpu")
            except specalign.SidecarError as e:
                print(e)
            """,
        )
        assert out == (
            "specalign: no socket can be made in XDG_RUNTIME_DIR, TMPDIR or /tmp: /tmp: Read-only file system\n"
        )

    @pytest.mark.parametrize(
        ("options", "reason"), [("ro", "read-only file system"), ("size=4k", "no space left on device")]
    )
    def test_no_room_for_the_attach_file(self, tmp_path, options, reason):
        script = f"""
            mount -t tmpfs -o size=4k none {tmp_path}
            head -c 4096 /dev/zero > {tmp_path}/filling
            mount -o remount,{options} {tmp_path}
            timeout 20 {BINARY} serve --daemon --attach {tmp_path}/attach.json && exit 9
            ls -A {tmp_path}
        """
        child = subprocess.run(
            ["unshare", "--mount", "sh", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
        )
        assert child.stdout == "filling\n"  # and no half-written file
        last = child.stderr.splitlines()[-1]
        assert last.startswith("specalign: writing the attach file: ")
        assert reason in last


class TestLimits:
    def test_no_memory_may_be_locked(self, home, tmp_path, batch, want):
        binary = program(tmp_path / "specalign", f'ulimit -l 0; exec {BINARY} "$@"\n')
        with specalign.Sidecar(device="cpu", threads=1, binary=binary) as sidecar:
            assert same(sidecar.session(k=3).step(*batch), want[0])

    def test_few_descriptors_for_the_sidecar(self, home, tmp_path, batch):
        """A session more than its descriptors allow is refused; those that are open go on."""
        binary = program(tmp_path / "specalign", f'ulimit -n 256; exec {BINARY} "$@"\n')
        with specalign.Sidecar(device="cpu", threads=1, binary=binary) as sidecar, sidecar.session() as session:
            session.step(*batch)
            pid = sidecar.pid
            now = len(os.listdir(f"/proc/{pid}/fd"))
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (now, hard))
            with pytest.raises(specalign.SidecarError, match="too many open files"):
                sidecar.session()
            assert session.step(*batch).restarts == 0
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            assert sidecar.session().step(*batch).converged
            assert sidecar.pid == pid

    def test_too_few_descriptors_to_start(self, home, tmp_path):
        binary = program(tmp_path / "specalign", f'ulimit -n 6; exec {BINARY} "$@"\n')
        with pytest.raises(specalign.SidecarError, match=r"before it was ready|does not answer"):
            specalign.Sidecar(device="cpu", binary=binary)

    def test_few_descriptors_for_the_trainer(self, home):
        out, err = trainer(
            """
            import resource
            with specalign.Sidecar(device="cpu") as sidecar, sidecar.session() as session:
                session.step(x, y)
                resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
                try:
                    sidecar.session()
                except specalign.Error as e:
                    print(e)
                print(session.step(x, y).seq)
                resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
                print(sidecar.session().step(x, y).seq)
            """
        ).communicate(timeout=60)
        message, *rest = out.splitlines()
        assert "Too many open files" in message, err
        assert rest == ["2", "1"]


def test_interrupt_of_the_whole_group(home):
    """Ctrl-C in a terminal: Python's KeyboardInterrupt, nothing from the sidecar, nothing left."""
    child = trainer(
        """
        big = np.random.default_rng(0).standard_normal((2500, 256)).astype("f4")
        sidecar = specalign.Sidecar(device="cpu")
        session = sidecar.session(objective="schatten")
        session.step(x, y)
        print(sidecar.pid, flush=True)
        while True:
            session.step(big, big[:, :64])
        """,
        start_new_session=True,
    )
    pid = int(child.stdout.readline())
    time.sleep(0.3)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGINT
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "sidecar" not in err.splitlines()[-1]
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


class TestClock:
    def test_the_trainers_clock_jumps(self, home, tmp_path):
        """Years forth and back while steps run; its libc says so to Python and to gRPC alike."""
        shim = compile_c(
            tmp_path,
            """
            #define _GNU_SOURCE
            #include <dlfcn.h>
            #include <sys/time.h>
            #include <time.h>
            long jump; // seconds
            int clock_gettime(clockid_t id, struct timespec *t) {
              static int (*real)(clockid_t, struct timespec *);
              if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
              int r = real(id, t);
              if (id == CLOCK_REALTIME) t->tv_sec += jump;
              return r;
            }
            int gettimeofday(struct timeval *t, void *z) {
              struct timespec now;
              clock_gettime(CLOCK_REALTIME, &now);
              t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
              return 0;
            }
            """,
        )
        out, err = trainer(
            """
            import ctypes
            jump = ctypes.c_long.in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), "jump")
            now, jump.value = time.time(), 10**8
            print(time.time() - now > 0.9e8)
            with specalign.Sidecar(device="cpu", timeout=5) as sidecar, sidecar.session() as session:
                for i in range(200):
                    future = session.submit(x, y)
                    jump.value = (i % 3 - 1) * 10**8
                    assert future.result(10).restarts == 0
                    assert sidecar.status(timeout=5).steps == i + 1
                print(session.steps)
            """,
            env={**os.environ, "LD_PRELOAD": str(shim)},
        ).communicate(timeout=60)
        assert out == "True\n200\n", err

    @root
    def test_another_monotonic_clock(self, home, tmp_path, batch, want):
        """A sidecar in a time namespace whose clocks are eleven days ahead of the trainer's."""
        namespace = "unshare --time --monotonic 1000000 --boottime 1000000"
        if subprocess.run([*namespace.split(), "true"], capture_output=True).returncode:
            pytest.skip("no time namespace can be made here")
        binary = program(tmp_path / "specalign", f'exec {namespace} {BINARY} "$@"\n')
        with specalign.Sidecar(device="cpu", threads=1, binary=binary, timeout=10) as sidecar:
            with sidecar.session(k=3) as session:
                assert [same(session.step(*batch), w) for w in want] == [True] * 3
            assert sidecar.status().uptime_seconds < 1000


@pytest.fixture(scope="module")
def major2(tmp_path_factory):
    """The program, built from these sources with the number of its protocol changed."""
    folder = tmp_path_factory.mktemp("major2")
    source = Path(__file__).resolve().parents[2]
    protocol, changed, overlay = source / "plugin/protocol.go", folder / "protocol.go", folder / "overlay.json"
    changed.write_text(protocol.read_text().replace("ProtocolMajor = 1", "ProtocolMajor = 2"))
    overlay.write_text(json.dumps({"Replace": {str(protocol): str(changed)}}))
    command = ["go", "build", "-overlay", overlay, "-o", folder / "specalign", "./cmd/specalign"]
    subprocess.run(command, cwd=source, check=True)
    return folder / "specalign"


class TestVersions:
    def test_a_newer_sidecar(self, major2, home):
        both = "speaks protocol version 2, this package version 1; install the same release of both"
        with pytest.raises(specalign.ProtocolError, match=both):
            specalign.Sidecar(binary=major2)
        with daemon(home, binary=major2) as (attach, _):
            with pytest.raises(specalign.ProtocolError, match=both):
                specalign.Sidecar.attach(attach)
            said = self.doctor(BINARY, attach)
            assert "this client speaks protocol version 1, the sidecar (specalign" in said
            assert ") version 2; install the same release of both" in said
            attach.write_text(attach.read_text().replace('"protocol_major": 2', '"protocol_major": 1'))
            with pytest.raises(specalign.ProtocolError, match=r"with protocol version 1, the sidecar is.*version 2"):
                specalign.Sidecar.attach(attach)  # where the file does not say it, Hello does

    def test_an_older_sidecar(self, major2, home, monkeypatch):
        for module in ("_connection", "_process", "_attach", "_session"):
            monkeypatch.setattr(f"specalign.{module}.PROTOCOL_MAJOR", 2)
        both = "speaks protocol version 1, this package version 2; install the same release of both"
        with pytest.raises(specalign.ProtocolError, match=both):
            specalign.Sidecar()
        with daemon(home) as (attach, _):
            with pytest.raises(specalign.ProtocolError, match=both):
                specalign.Sidecar.attach(attach)
            said = self.doctor(major2, attach)
            assert "this client speaks protocol version 2, the sidecar (specalign" in said
            assert ") version 1; install the same release of both" in said

    def test_a_client_that_does_not_look(self, major2, home, monkeypatch):
        """The sidecar refuses it."""
        monkeypatch.setattr("specalign._process.PROTOCOL_MAJOR", 2)
        monkeypatch.setattr("specalign._connection.PROTOCOL_MAJOR", 2)
        with specalign.Sidecar(device="cpu", binary=major2) as sidecar:
            assert sidecar.hello.protocol_major == 2
            with pytest.raises(specalign.ProtocolError, match=r"speaks protocol version 1, this sidecar.*version 2"):
                sidecar.session()

    def doctor(self, binary, attach):
        done = subprocess.run([binary, "doctor", "--attach", attach], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        return done.stdout

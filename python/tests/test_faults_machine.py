"""Limits, signals and clocks of the machine (docs/faults.md)."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time

import pytest
from faults import BINARY, compile_c, program, root, same, trainer

import specalign


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
        session = sidecar.session(objective="schatten", kernel="gaussian", sigma=5.0)
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


def test_interrupt_of_the_whole_group_during_a_launch(home):
    """At moments all over the launch, and twice: the trainer lives on, and no process or folder is left with it."""
    text = """
        import random
        random.seed(5)
        left = 0
        def alarm(*_):
            global left
            left -= 1
            if left >= 0:
                raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, alarm)
        interrupted = 0
        for i in range(40):
            sidecar = None
            left = 2 if i % 4 == 0 else 1
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.03 * random.random(), 0.02)
                    sidecar = specalign.Sidecar(device="cpu")
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    interrupted += 1
            except KeyboardInterrupt:  # the second one, on a slow machine behind the first one's end
                signal.setitimer(signal.ITIMER_REAL, 0)
                interrupted += 1
            if sidecar is not None:
                sidecar.close()
            while any(t.name == "specalign-calm" for t in threading.enumerate()):
                time.sleep(0.01)
            children = open(f"/proc/self/task/{os.getpid()}/children").read()
            assert not children, (i, children, [open(f"/proc/{c}/stat").read() for c in children.split()])
            # One that was dropped ends beside, and its folder goes just behind it.
            deadline = time.monotonic() + 5
            while os.listdir(os.environ["TMPDIR"]) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not os.listdir(os.environ["TMPDIR"]), i
        print(interrupted)
        """
    out, err = trainer(text).communicate(timeout=100)
    assert out.strip().isdigit(), err
    assert int(out) >= 10, err


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

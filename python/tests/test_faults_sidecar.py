"""What may happen to a sidecar, and what a user then sees (docs/faults.md)."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from batches import SLOW, clustered
from faults import BINARY, HEAD, compile_c, crash, daemon, program, root, same, stop, trainer

import specalign
from specalign import _host, _memory


class TestHung:
    def test_a_stopped_sidecar_is_replaced(self, home, batch, want, monkeypatch):
        monkeypatch.setattr(_host, "_ALIVE_TIMEOUT", 0.3)
        with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session(k=3) as session:
            assert same(session.step(*batch), want[0])
            stopped = sidecar.pid
            stop(stopped)
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
            stop(sidecar.pid)
            threading.Timer(0.5, os.kill, (sidecar.pid, signal.SIGCONT)).start()
            got = session.step(*batch)
            assert got.restarts == 0
            assert same(got, want[1])

    def test_a_stopped_daemon(self, home, batch, monkeypatch):
        monkeypatch.setattr(_host, "_ALIVE_TIMEOUT", 0.3)
        with daemon(home) as (attach, process), specalign.Sidecar.attach(attach) as sidecar:
            session = sidecar.session()
            first = session.step(*batch)
            stop(process.pid)
            with pytest.raises(specalign.StepTimeoutError, match="answers nothing else"):
                session.step(*batch, timeout=0.3)
            process.send_signal(signal.SIGCONT)
            assert session.step(*batch).seq == first.seq + 1
            session.close()

    def test_steps_that_took_too_long_leave_no_sessions(self, sidecar, rng, batch):
        big = clustered(rng, 600, 64, 64)
        before = sidecar.status().sessions
        with sidecar.session(**SLOW) as session:
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

    @root
    @pytest.mark.parametrize("call", ["step", "submit behind a step", "torch"])
    def test_a_batch_larger_than_memory(self, home, tmp_path, call):
        """Refused before anything is allocated; without that, the kernel would end the trainer in its group."""
        group = self.group(1500 << 20)
        try:
            out, err = trainer(
                f"""
                open("{group}/cgroup.procs", "w").write(str(os.getpid()))
                import torch
                call, n = "{call}", 400_000  # 3.1 GiB with the gradient
                big = np.broadcast_to(np.float32(1), (n, 512))
                with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session() as session:
                    session.step(x, y)
                    future = session.submit(x, y)
                    try:
                        if call == "step":
                            session.step(big, big)
                        elif call == "torch":
                            student = torch.ones(1, 1).expand(n, 512).requires_grad_()
                            specalign.torch.SpecAlign(sidecar=sidecar, max_failures=1)(student, big)
                        else:
                            session.submit(big, big)
                    except specalign.InputError as e:
                        print(e)
                    future.result()
                    print(session.step(x, y).seq)
                """,
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
            ).communicate(timeout=60)
            assert out.splitlines() == [
                "specalign: 400000 rows of 512 and 512 columns need 3.1 GiB, and steps may take 1.3 GiB here; "
                "give fewer rows a step",
                "3",
            ], err
            for peak in ("memory.peak", "memory.max_usage_in_bytes"):  # of versions 2 (since Linux 5.19) and 1
                if (group / peak).exists():
                    assert int((group / peak).read_text()) < 1000 << 20
        finally:
            group.rmdir()

    @root
    def test_less_memory_now_than_a_step_may_take(self, home):
        """What others took may come back: the step fails, the session goes on."""
        group = self.group(1500 << 20)
        try:
            out, err = trainer(
                f"""
                open("{group}/cgroup.procs", "w").write(str(os.getpid()))
                ballast = np.ones(900 << 17)
                big = np.broadcast_to(np.float32(1), (120_000, 512))
                with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session() as session:
                    session.step(x, y)
                    try:
                        session.step(big, big)
                    except specalign.Error as e:
                        print(type(e).__name__, e)
                    print(session.step(x, y).seq)
                """
            ).communicate(timeout=60)
            message, seq = out.splitlines()
            assert message.startswith("Error specalign: no memory of 703."), err
            assert "MiB are available" in message
            assert seq == "2"
        finally:
            group.rmdir()


def test_control_groups_of_both_versions(tmp_path):
    """Limits and uses on the way up, without what the kernel can drop; a path that is not there is the host's."""

    def group(path, limit, use, stat):
        folder = tmp_path / "cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        names = (
            ("memory.max", "memory.current") if limit[0] == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        for name, text in zip((*names, "memory.stat"), (limit[1], use, stat), strict=True):
            (folder / name).write_text(f"{text}\n")

    group("a", (2, "max"), 5000, "anon 4000\ninactive_file 10")
    group("a/b", (2, 3000), 1000, "anon 700\ninactive_file 200")
    group("memory", (1, 9000), 4000, "total_inactive_file 1000")
    names = tmp_path / "names"
    names.write_text("4:memory:/not/here\n1:cpu:/\n0::/a/b\n")
    found = list(_memory._groups(str(tmp_path / "cgroup"), str(names)))
    assert found == [(9000, 3000), (3000, 800)]
    assert list(_memory._groups(str(tmp_path), str(tmp_path / "none"))) == []


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

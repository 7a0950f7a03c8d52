"""Sockets, attach files and folders that are not as they should be (docs/faults.md)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest
from faults import BINARY, NOBODY, daemon, root, same, trainer

import specalign


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

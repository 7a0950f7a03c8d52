"""Start and log of sidecars; what is left behind: nothing."""

from __future__ import annotations

import logging
import os
import stat
import time

import pytest
from faults import BINARY, gone, program

import specalign
from specalign import _binary
from specalign._process import Lines, Stream
from specalign._socketdir import SocketDir


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

    def test_nothing_is_left_behind(self, home, batch):
        with specalign.Sidecar(device="cpu") as sidecar:
            assert [stat.S_IMODE(p.stat().st_mode) for p in home.iterdir()] == [0o700]
            sidecar.session().step(*batch)
            pid, began = sidecar.pid, time.monotonic()
        assert time.monotonic() - began < 2  # it heeds Shutdown; no signal is needed
        assert gone(pid)
        assert not list(home.iterdir())
        sidecar.close()
        with pytest.raises(specalign.ClosedError):
            sidecar.session()

    def test_dropped_without_close(self, home, batch):
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

    def test_a_temporary_directory_that_will_not_do(self, home, monkeypatch, batch):
        monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
        for name in ("x" * 90, "a%20b", "a?b", "a#b", "a\nb", os.fsdecode(b"a\xff"), "a|b"):
            folder = home / name
            folder.mkdir()
            monkeypatch.setenv("TMPDIR", str(folder))
            monkeypatch.setattr("tempfile.tempdir", None)
            made = SocketDir()
            made.remove()
            assert os.path.dirname(made.path) == "/tmp"
            if name == "a|b":
                with specalign.Sidecar(device="cpu") as sidecar:
                    assert sidecar.session().step(*batch).converged
            folder.rmdir()  # nothing is in it

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
    def test_programs_that_are_no_sidecar(self, tmp_path, home, text, error, match):
        began = time.monotonic()
        with pytest.raises(specalign.Error, match=match) as e:
            specalign.Sidecar(binary=program(tmp_path / "program", text), launch_timeout=1.5)
        assert isinstance(e.value, error) or "first output" in str(e.value)
        assert time.monotonic() - began < 10
        assert not list(home.iterdir())

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

"""Client and sidecar of different versions (docs/faults.md)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from faults import BINARY, daemon

import specalign


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
        for module in ("_connection", "_process", "_attach", "_stepper"):
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

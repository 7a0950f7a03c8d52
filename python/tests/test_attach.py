"""Clients that attach to a daemon."""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest
from batches import clustered
from faults import BINARY

import specalign


class TestAttach:
    @pytest.fixture
    def daemon(self, home):
        attach = home / "attach.json"
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

        attach, start = daemon
        start()
        content = json.loads(attach.read_text()) | change
        (tmp_path / "old.json").write_text(json.dumps(content))
        (tmp_path / "old.json").chmod(0o600)
        with pytest.raises(specalign.SidecarError, match=r"daemon \d+ that .* names has ended"):
            specalign.Sidecar.attach(tmp_path / "old.json")

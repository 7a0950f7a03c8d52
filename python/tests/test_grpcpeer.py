"""The doorbell's client against a grpc-go server that does what it may (internal/grpcpeer)."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from pathlib import Path

import pytest

from specalign._doorbell import Broken, Doorbell

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("grpcpeer") / "grpcpeer"
    subprocess.run(["go", "build", "-o", str(path), "./internal/grpcpeer"], cwd=ROOT, check=True)
    return path


@pytest.fixture
def peer(program, tmp_path_factory):
    """Starts servers; a function that connects a doorbell to a new one, for a method."""
    servers, bells = [], []

    def start(*flags):
        socket = tmp_path_factory.mktemp("s") / "s"
        servers.append(subprocess.Popen([program, socket, *flags]))
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)

        def bell(method):
            bells.append(Doorbell.connect(str(socket), f"/peer/{method}", 10))
            return bells[-1]

        return bell

    yield start
    for bell in bells:
        bell.close()
    for server in servers:
        server.kill()
        server.wait()


def test_many_calls(peer):
    """Its windows are opened and its bandwidth is probed with pings, as grpc-go does by itself."""
    bell = peer()("Echo")
    for i in range(300):
        message = bytes([i % 256]) * (i * 53 % 16000)
        assert bell.call(message, 10) == message


def test_answers_larger_than_every_window(peer):
    connect = peer()
    bell = connect("Size")
    for size in (0, 1, 65530, 65536, 1 << 17, 1 << 20, 3 << 20, 3 << 20, 17):
        assert bell.call(b"%d" % size, 10) == b"x" * size
    with pytest.raises(Broken, match="too long"):
        bell.call(b"%d" % (5 << 20), 10)


@pytest.mark.parametrize("method", ["Header", "Trailer"])
def test_metadata_of_several_frames(peer, method):
    bell = peer()(method)
    for size in (10, 100_000, 40_000):
        assert bell.call(b"%d" % size, 10) == b"x" * size


def test_trailers_only(peer):
    connect = peer()
    bell = connect("Fail")
    for size in (0, 10, 20_000):
        assert bell.call(b"%d" % size, 10) is None
    assert connect("Size").call(b"no number", 10) is None


def test_a_server_that_ends_gracefully(peer):
    connect = peer()
    bell, idle = connect("Stop"), connect("Echo")
    idle.call(b"", 10)
    assert bell.call(b"70000", 10) == b"x" * 70000  # the call under way is answered
    with pytest.raises(Broken, match="used up"):
        bell.call(b"1", 10)
    with contextlib.suppress(Broken):
        assert idle.call(b"1", 10) == b"1"  # so may one be that crosses the word of the end
    with pytest.raises(Broken):
        idle.call(b"1", 10)


def test_connections_of_an_age(peer):
    """Each ends with a GOAWAY that may come at any moment: a call is answered, or known not to be."""
    connect = peer("-age", "50ms")
    answered, ended, until = 0, 0, time.monotonic() + 1
    bell = connect("Echo")
    while time.monotonic() < until:
        try:
            assert bell.call(b"message", 10) == b"message"
            answered += 1
        except Broken:
            ended += 1
            bell = connect("Echo")
    assert answered > 100
    assert ended > 5


def test_keepalive(peer):
    """A connection that is pinged during a call lives; one that was idle for too long is known to be gone."""
    connect = peer("-keepalive")
    bell, idle = connect("Slow"), connect("Echo")
    idle.call(b"", 10)
    assert bell.call(b"3500", 10) == b"x" * 3500
    with pytest.raises(Broken):
        idle.call(b"", 10)
    assert connect("Echo").call(b"x", 10) == b"x"


def test_settings_of_the_server(peer):
    connect = peer("-streams", "1", "-window", "70000")
    bell = connect("Echo")
    for _ in range(50):
        assert bell.call(bytes(16000), 10) == bytes(16000)


def test_frames_of_every_kind(peer):
    """Padding, continued headers and trailers, a hundred pings a call, settings, windows, unknown frames, resets."""
    bell = peer("-frames")("Size")
    for size in (0, 1, 1000, 100_000, 1 << 20, 5):
        assert bell.call(b"%d" % size, 10) == b"x" * size


def test_threads(peer):
    connect = peer()
    wrong = []

    def work(i):
        bell = connect("Echo")
        for j in range(100):
            message = b"%d %d" % (i, j)
            if bell.call(message, 10) != message:
                wrong.append(message)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong

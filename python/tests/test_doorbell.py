"""The doorbell's client against the real server, and against answers that no good server gives."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time

import pytest
from batches import SLOW, clustered
from hypothesis import example, given, settings
from hypothesis import strategies as st

import specalign
from specalign import _connection
from specalign._doorbell import Broken, Doorbell

METHOD = "/specalign.v1.Sidecar/Step"
MESSAGE = b"\x08\x01"


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(data):
    return struct.pack(">?I", False, len(data)) + data


GREETING = frame(4, 0, 0) + frame(8, 0, 0, struct.pack(">I", 1 << 16)) + frame(4, 1, 0)
HEADERS, TRAILERS = frame(1, 4, 1, b"\x88"), frame(1, 5, 1, b"\x88")


@pytest.fixture
def pair():
    near, far = socket.socketpair(socket.AF_UNIX)
    bell = Doorbell(near, METHOD)
    yield bell, far
    bell.close()
    far.close()


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_answers_in_pieces(pair, size):
    bell, far = pair
    data = bytes(range(200))
    answer = GREETING + HEADERS + frame(0, 0, 1, message(data)[:50]) + frame(0, 0, 1, message(data)[50:]) + TRAILERS

    def serve():
        for i in range(0, len(answer), size):
            far.sendall(answer[i : i + size])

    thread = threading.Thread(target=serve)
    thread.start()
    assert bell.call(MESSAGE, 10) == data
    thread.join()
    assert far.recv(1 << 16).startswith(b"PRI * HTTP/2.0")


def test_it_answers_pings_and_keeps_the_windows(pair):
    bell, far = pair
    far.sendall(GREETING + frame(6, 0, 0, b"12345678") + frame(6, 1, 0, b"87654321") + HEADERS)
    far.sendall(frame(0, 0, 1, message(b"x" * 10)) + TRAILERS)
    assert bell.call(MESSAGE, 10) == b"x" * 10
    assert far.recv(1 << 16).endswith(frame(4, 1, 0) + frame(6, 1, 0, b"12345678"))
    far.sendall(frame(1, 4, 3, b"\x88") + frame(0, 1, 3, message(b"")))
    assert bell.call(MESSAGE, 10) == b""
    sent = far.recv(1 << 16)
    assert sent.endswith(frame(0, 1, 3, message(MESSAGE)))
    for stream in range(5, 5 + 2 * 70, 2):
        far.sendall(frame(1, 4, stream, b"\x88") + frame(0, 1, stream, message(bytes(16000))))
        assert bell.call(MESSAGE, 10) == bytes(16000)
        sent += far.recv(1 << 16)
    assert sent.count(frame(8, 0, 0, struct.pack(">I", 66 * 16005 + 15 + 5))) == 1  # after a mebibyte


def test_an_answer_without_a_message(pair):
    bell, far = pair
    far.sendall(GREETING + TRAILERS)
    assert bell.call(MESSAGE, 10) is None


@pytest.mark.parametrize(
    "answer",
    [
        frame(7, 0, 0, bytes(8)),  # GOAWAY
        frame(3, 0, 1, bytes(4)),  # RST_STREAM
        frame(7, 0, 0, bytes(8)) + HEADERS + frame(0, 1, 1, message(b"late")),
        HEADERS + frame(0, 9, 1, b"\x06" + message(b"")),  # all padding
        HEADERS + frame(0, 9, 1),
        HEADERS + frame(0, 1, 1, b"\x01" + message(b"compressed")[1:]),
        HEADERS + frame(0, 1, 1, message(b"one") + message(b"two")),
        HEADERS + frame(0, 1, 1, b"\x00"),
        frame(0, 1, 1, bytes(1 << 15)),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
)
def test_other_answers(pair, answer):
    bell, far = pair
    far.sendall(answer)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(Broken):
        bell.call(MESSAGE, 10)


frames = st.builds(
    lambda kind, flags, stream, payload: frame(kind, flags, stream, payload),
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 255]),
    st.sampled_from([0, 1, 3, 1 << 31 | 1]),
    st.binary(max_size=40) | st.binary(max_size=40).map(message),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(frames, max_size=8).map(b"".join) | st.binary(max_size=100))
@example(GREETING + HEADERS + TRAILERS)
def test_any_answer(answer):
    """Whatever a peer sends ends a call with a message, without one, or as broken."""
    near, far = socket.socketpair(socket.AF_UNIX)
    bell = Doorbell(near, METHOD)
    try:
        far.sendall(answer)
        far.shutdown(socket.SHUT_WR)
        try:
            got = bell.call(MESSAGE, 10)
        except Broken:
            return
        assert got is None or len(got) <= len(answer)
    finally:
        bell.close()
        far.close()


def test_a_padded_answer_behind_the_end_of_the_connection(pair):
    bell, far = pair
    far.sendall(GREETING + frame(7, 0, 0, struct.pack(">II", 1, 0)) + HEADERS)
    far.sendall(
        frame(0, 9, 1, b"\x02" + message(b"x") + b"\x00\x00") + frame(8, 0, 0, struct.pack(">I", (1 << 31) - 1))
    )
    assert bell.call(MESSAGE, 10) == b"x"
    with pytest.raises(Broken, match="used up"):
        bell.call(MESSAGE, 10)


def test_a_small_window_for_calls(pair):
    bell, far = pair
    far.sendall(frame(4, 0, 0, struct.pack(">HIHI", 3, 100, 4, 6)) + HEADERS + frame(0, 1, 1, message(b"")))
    assert bell.call(bytes(100), 10) == b""
    with pytest.raises(Broken, match="used up"):
        bell.call(MESSAGE, 10)


def test_time_out(pair):
    bell, far = pair
    far.sendall(GREETING)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        bell.call(MESSAGE, 0.1)
    assert 0.1 <= time.monotonic() - began < 5


def test_a_window_that_stays_shut(pair):
    bell, far = pair
    for stream in range(1, 9, 2):
        far.sendall(frame(0, 1, stream, message(b"")))
        bell.call(bytes(16000), 10)
        far.recv(1 << 16)
    with pytest.raises(Broken, match="used up"):
        bell.call(bytes(16000), 10)


def test_close_wakes_a_call(pair):
    bell, _ = pair
    threading.Timer(0.1, bell.close).start()
    with pytest.raises(Broken):
        bell.call(MESSAGE, 10)


class TestConnection:
    def test_steps_go_by_it(self, sidecar, batch, monkeypatch):
        with sidecar.session() as session:
            assert session.step(*batch).converged  # makes the arena, too
            monkeypatch.setattr(_connection.Connection, "_call", None)  # grpcio is not asked
            assert session.step(*batch).converged
            monkeypatch.undo()

    def test_many_steps(self, sidecar, rng):
        """More bytes than the windows of HTTP/2 hold without being opened again."""
        batch = clustered(rng, 8, 4, 4)
        with sidecar.session() as session:
            for i in range(1500):
                assert session.step(*batch).seq == i + 1

    def test_refused_steps(self, sidecar, batch):
        student, reference = batch[0].copy(), batch[1]
        student[3, 0] = float("nan")
        with sidecar.session() as session:
            want = session.step(*batch)
            for _ in range(3):
                with pytest.raises(specalign.InputError, match="row 3"):
                    session.step(student, reference)
            assert session.step(*batch).seq == want.seq + 1

    def test_without_it(self, sidecar, batch, monkeypatch):
        """Where it cannot be used, grpcio does it all, with the same bits."""
        with sidecar.session() as session:
            want = [session.step(*batch) for _ in range(2)]

        def connect(*args):
            raise Broken("not here")

        monkeypatch.setattr(_connection.Doorbell, "connect", connect)
        with specalign.Sidecar(device="cpu", threads=1) as other, other.session() as session:
            got = [session.step(*batch) for _ in range(2)]
            assert not other._host.connection._direct
        for a, b in zip(want, got, strict=True):
            assert a.value == b.value
            assert (a.grad == b.grad).all()

    def test_a_lost_connection_is_made_again(self, sidecar, batch):
        with sidecar.session() as session:
            want = session.step(*batch)
            connection = sidecar._host.connection
            for bell in connection._idle:
                bell._socket.shutdown(socket.SHUT_RDWR)
            assert session.step(*batch).seq == want.seq + 1  # by grpcio
            assert connection._direct
            assert session.step(*batch).seq == want.seq + 2
            assert connection._idle

    def test_interrupted(self, sidecar, rng, batch):
        big = clustered(rng, 2000, 128, 128)
        with sidecar.session(**SLOW) as session:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                session.step(*big)
            assert session.step(*batch).seq == 1

    def test_threads(self, sidecar, rng):
        batches = [clustered(rng, 40, 12, 8) for _ in range(4)]
        sessions = [sidecar.session() for _ in batches]
        want = [s.step(*b).value for s, b in zip(sessions, batches, strict=True)]
        for session in sessions:
            session.close()
        sessions = [sidecar.session() for _ in batches]
        got = [s.submit(*b) for s, b in zip(sessions, batches, strict=True)]
        assert [f.result(30).value for f in got] == want


def test_given_up_at_the_deadline_is_a_time_out(pair):
    bell, far = pair

    def serve():
        far.recv(1 << 16)
        time.sleep(0.08)
        far.sendall(GREETING + frame(3, 0, 1, struct.pack(">I", 8)))  # RST_STREAM, CANCEL

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(TimeoutError):
        bell.call(MESSAGE, 0.1)
    thread.join()


def test_a_connection_that_the_server_ends_is_not_kept(sidecar, rng):
    batch = clustered(rng, 16, 4, 4)
    with sidecar.session() as session:
        session.step(*batch)
        connection = sidecar._host.connection
        bell = connection._idle[-1]
        answer = bell._answer

        def ended(deadline):
            data = answer(deadline)
            bell._control(7, 0, struct.pack(">II", bell._stream, 0))  # GOAWAY, with this call as the last one
            return data

        bell._answer = ended
        session.step(*batch)
        assert bell not in connection._idle
        assert bell._socket.fileno() == -1
        assert session.step(*batch).restarts == 0
        assert connection._idle


def test_nothing_is_kept_after_the_end(rng):
    batch = clustered(rng, 16, 4, 4)
    with specalign.Sidecar(device="cpu", threads=1) as sidecar, sidecar.session() as session:
        session.step(*batch)
        connection = sidecar._host.connection
        (bell,) = connection._idle
        call = bell.call

        def late(*args):
            answer = call(*args)
            connection._closed = True  # as if close() came between this and the next line
            return answer

        bell.call = late
        session.step(*batch)
        assert bell._socket.fileno() == -1
        connection._closed = False

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
from specalign import _messages as pb
from specalign._doorbell import Broken, Doorbell

REQUEST = b"\x10\x01"


def frame(data):
    return struct.pack(">I", len(data)) + data


@pytest.fixture
def pair():
    near, far = socket.socketpair(socket.AF_UNIX)
    bell = Doorbell(near)
    yield bell, far
    bell.close()
    far.close()


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_answers_in_pieces(pair, size):
    bell, far = pair
    data = bytes(range(256)) * 40
    answer = frame(data)

    def serve():
        for i in range(0, len(answer), size):
            far.sendall(answer[i : i + size])

    thread = threading.Thread(target=serve)
    thread.start()
    assert bell.call(REQUEST, 10) == data
    thread.join()
    assert far.recv(1 << 16) == b"specalign steps\n" + frame(REQUEST)
    far.sendall(frame(b""))
    assert bell.call(b"", 10) == b""
    assert far.recv(1 << 16) == frame(b"")  # the greeting goes once


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\x00",
        frame(b"cut off")[:-1],
        frame(b"one") + frame(b"two"),
        frame(b"one") + b"\x00",
        b"\x00\x40\x00\x01" + bytes(100),  # a byte more than is read
        b"\xff\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_other_answers(pair, answer):
    bell, far = pair
    far.sendall(answer)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(Broken):
        bell.call(REQUEST, 10)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100) | st.binary(max_size=100).map(frame))
@example(frame(b""))
def test_any_answer(answer):
    """Whatever a peer sends ends a call with a message or as broken."""
    near, far = socket.socketpair(socket.AF_UNIX)
    bell = Doorbell(near)
    try:
        far.sendall(answer)
        far.shutdown(socket.SHUT_WR)
        try:
            got = bell.call(REQUEST, 10)
        except Broken:
            return
        assert answer == frame(got)
    finally:
        bell.close()
        far.close()


@pytest.mark.parametrize("part", [b"", b"\x00\x00", frame(b"cut off")[:-1]])
def test_time_out(pair, part):
    bell, far = pair
    far.sendall(part)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        bell.call(REQUEST, 0.1)
    assert 0.1 <= time.monotonic() - began < 5


def test_a_slow_answer_does_not_put_the_time_out_off(pair):
    bell, far = pair
    stop = threading.Event()

    def serve():
        far.sendall(struct.pack(">I", 1000))
        while not stop.wait(0.02):
            far.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(TimeoutError):
        bell.call(REQUEST, 0.2)
    stop.set()
    thread.join()


def test_a_server_that_does_not_read(pair):
    bell, _ = pair
    with pytest.raises(TimeoutError):
        bell.call(bytes(16 << 20), 0.1)


def test_close_wakes_a_call(pair):
    bell, _ = pair
    threading.Timer(0.1, bell.close).start()
    with pytest.raises(Broken):
        bell.call(REQUEST, 10)


def test_nobody_listens(tmp_path):
    with pytest.raises(Broken, match="No such file"):
        Doorbell.connect(str(tmp_path / "s"), 1)


class TestConnection:
    def test_steps_go_by_it(self, sidecar, batch, monkeypatch):
        with sidecar.session() as session:
            assert session.step(*batch).converged  # makes the arena, too
            monkeypatch.setattr(_connection.Connection, "_call", None)  # grpcio is not asked
            assert session.step(*batch).converged
            monkeypatch.undo()

    def test_refused_steps(self, sidecar, batch):
        student, reference = batch[0].copy(), batch[1]
        student[3, 0] = float("nan")
        with sidecar.session() as session:
            want = session.step(*batch)
            for _ in range(3):
                with pytest.raises(specalign.InputError, match="row 3"):
                    session.step(student, reference)
            assert session.step(*batch).seq == want.seq + 1

    def same_without_it(self, sidecar, batch):
        """Check that grpcio does it all, with the same bits; return the connection."""
        with sidecar.session() as session:
            want = [session.step(*batch) for _ in range(2)]
        with specalign.Sidecar(device="cpu", threads=1) as other, other.session() as session:
            got = [session.step(*batch) for _ in range(2)]
            connection = other._host.connection
            assert not connection._direct
        for a, b in zip(want, got, strict=True):
            assert a.value == b.value
            assert (a.grad == b.grad).all()

    def test_without_it(self, sidecar, batch, monkeypatch):
        def connect(*args):
            raise Broken("not here")

        monkeypatch.setattr(_connection.Doorbell, "connect", connect)
        self.same_without_it(sidecar, batch)

    def test_a_sidecar_that_does_not_know_it(self, sidecar, batch, monkeypatch):
        """One of an earlier minor version is not asked, and what its gRPC answers to the greeting is no answer."""
        monkeypatch.setattr(_connection.Doorbell, "connect", None)
        hello = pb.HelloReply.decode

        def earlier(data):
            reply = hello(data)
            reply.protocol_minor = 1
            return reply

        with monkeypatch.context() as patch:
            patch.setattr(pb.HelloReply, "decode", earlier)
            self.same_without_it(sidecar, batch)
        monkeypatch.undo()
        monkeypatch.setattr("specalign._doorbell._GREETING", b"specalign ships\n")
        self.same_without_it(sidecar, batch)

    def test_a_client_of_an_earlier_version(self, sidecar, rng):
        """Its doorbell is an HTTP/2 client, which finds the status of a step in the reply."""
        with sidecar.session() as session:
            session.step(*clustered(rng, 16, 4, 4))
            said = session._stepper._said[3]
            connection = sidecar._host.connection
            for seq, code in ((1, 0), (2, 0), (9, 9)):
                request = pb.StepRequest.numbered(said, seq) + pb.StepRequest(status_in_reply=True).encode()
                reply = pb.StepReply.decode(connection._call(_connection._STEP, request, 10))
                assert (reply.seq, reply.code) == (seq, code)

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
        """Sixteen threads, each with a connection of its own: the same bits as one behind the other."""
        batches = [clustered(rng, 40, 12, 8) for _ in range(16)]

        def steps(session, batch):
            return [session.step(*batch).value for _ in range(5)]

        want = []
        for batch in batches:
            with sidecar.session() as session:
                want.append(steps(session, batch))
        sessions = [sidecar.session() for _ in batches]
        got = [[] for _ in batches]
        threads = [
            threading.Thread(target=lambda i=i: got[i].extend(steps(sessions[i], batches[i])))
            for i in range(len(batches))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert got == want
        assert len(sidecar._host.connection._idle) <= 16
        for session in sessions:
            session.close()


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

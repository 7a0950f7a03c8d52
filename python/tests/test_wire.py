"""The codec against Google's: same bytes in, same values out, and no other exception than WireError."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import random
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specalign import _messages as pb
from specalign._errors import WireError
from specalign._wire import Kind, Message, _layout

ROOT = Path(__file__).resolve().parents[2]

OTHERS = """
syntax = "proto3";
package others;
message Empty {}
message StdioData { enum Channel { INVALID = 0; STDOUT = 1; STDERR = 2; } Channel channel = 1; bytes data = 2; }
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse { enum S { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; } S status = 1; }
"""


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    """Google's classes for all our messages, by name."""
    from grpc_tools import protoc

    folder = tmp_path_factory.mktemp("proto")
    (folder / "others.proto").write_text(OTHERS)
    (folder / "sidecar.proto").write_text((ROOT / "plugin/proto/specalign.proto").read_text())
    assert protoc.main(["", f"-I{folder}", f"--python_out={folder}", "others.proto", "sidecar.proto"]) == 0
    sys.path.insert(0, str(folder))
    try:
        modules = [importlib.import_module(m) for m in ("sidecar_pb2", "others_pb2")]
    finally:
        sys.path.remove(str(folder))
    return {c.__name__: next(getattr(m, c.__name__) for m in modules if hasattr(m, c.__name__)) for c in MESSAGES}


MESSAGES = [c for c in vars(pb).values() if isinstance(c, type) and issubclass(c, Message) and c is not Message]

_int = {
    Kind.UINT32: st.integers(0, 2**32 - 1),
    Kind.UINT64: st.integers(0, 2**64 - 1),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
}
_text = st.text(st.characters(exclude_categories=["Cs"]))


def values(cls):
    """A strategy for messages of a class."""
    fields = {}
    for spec in _layout(cls).values():
        if spec.kind in _int:
            fields[spec.name] = _int[spec.kind]
        elif spec.kind == Kind.MESSAGE:
            fields[spec.name] = st.none() | values(spec.message)
        else:
            fields[spec.name] = {
                Kind.BOOL: st.booleans(),
                Kind.DOUBLE: st.floats(),
                Kind.DOUBLES: st.lists(st.floats(), max_size=40),
                Kind.STRING: _text,
                Kind.STRINGS: st.lists(_text, max_size=4),
                Kind.BYTES: st.binary(),
            }[spec.kind]
    return st.builds(cls, **fields)


def bits(x):
    return struct.pack("<d", x)


def assert_same(ours, theirs):
    for spec in _layout(type(ours)).values():
        a, b = getattr(ours, spec.name), getattr(theirs, spec.name)
        if spec.kind == Kind.MESSAGE:
            assert (a is not None) == theirs.HasField(spec.name)
            if a is not None:
                assert_same(a, b)
        elif spec.kind == Kind.DOUBLE:
            assert bits(a) == bits(b), spec
        elif spec.kind == Kind.DOUBLES:
            assert [bits(x) for x in a] == [bits(x) for x in b], spec
        elif spec.kind == Kind.STRINGS:
            assert a == list(b), spec
        else:
            assert a == b, spec


def fill(theirs, ours):
    for spec in _layout(type(ours)).values():
        value = getattr(ours, spec.name)
        if spec.kind == Kind.MESSAGE:
            if value is not None:
                getattr(theirs, spec.name).SetInParent()
                fill(getattr(theirs, spec.name), value)
        elif spec.kind in (Kind.DOUBLES, Kind.STRINGS):
            getattr(theirs, spec.name).extend(value)
        else:
            setattr(theirs, spec.name, value)
    return theirs


def test_fields_are_those_of_the_proto_file(google):
    for cls in MESSAGES:
        descriptor = google[cls.__name__].DESCRIPTOR
        assert {f.name: f.number for f in descriptor.fields} == {s.name: n for n, s in _layout(cls).items()}
        names = {"uint32", "uint64", "int32", "int64", "bool", "double", "string", "bytes", "message", "enum"}
        for f in descriptor.fields:
            kind = _layout(cls)[f.number].kind
            declared = {5: "int32", 13: "uint32", 4: "uint64", 3: "int64", 8: "bool", 1: "double", 9: "string"}
            declared |= {12: "bytes", 11: "message", 14: "int32"}
            want = declared[f.type] + ("s" if f.is_repeated else "")
            assert declared[f.type] in names
            assert kind.name.lower() == want


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda c: c.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_round_trip(google, cls, data):
    ours = data.draw(values(cls))
    theirs = fill(google[cls.__name__](), ours)
    assert ours.encode() == theirs.SerializeToString(deterministic=True)
    assert_same(cls.decode(theirs.SerializeToString()), theirs)


@pytest.mark.parametrize("cls", [pb.StepReply, pb.StatusReply, pb.StepRequest, pb.HelloReply, pb.StdioData])
def test_mutated_bytes_read_as_google_reads_them(google, cls):
    rng = random.Random(1)
    full = {
        pb.StepReply: pb.StepReply(
            1, 0.5, [1.0], [2.0, -1.0], True, 0.1, 0.2, 0.3, 9, True, 0, "r", "cpu", "avx2", 1e-3, ["é"]
        ),
        pb.StatusReply: pb.StatusReply(
            pb.HelloReply(1, 0, "0.1", 77, "cpu", "avx2", True, "n", 2), 1.5, 2, 3, 4, 0.1, "daemon"
        ),
        pb.StepRequest: pb.StepRequest("s", 3, 4, pb.Region(64, 5, 1), pb.Region(128, 6, 2), 256, True),
        pb.HelloReply: pb.HelloReply(1, 0, "0.1", -5, "cpu"),
        pb.StdioData: pb.StdioData(1, b"abc"),
    }[cls].encode()
    accepted = refused = 0
    for _ in range(6000):
        data = bytearray(full)
        for _ in range(rng.randint(1, 4)):
            i = rng.randrange(len(data) + 1)
            what = rng.random()
            if what < 0.5 and i < len(data):
                data[i] = rng.choice([rng.randrange(256), data[i] ^ 1 << rng.randrange(8), 0xFF, 0x80])
            elif what < 0.75:
                data[i:i] = rng.randbytes(rng.randint(1, 3))
            else:
                del data[i : i + rng.randint(1, 3)]
        theirs = google[cls.__name__]()
        try:
            theirs.ParseFromString(bytes(data))
        except Exception:
            refused += 1
            with pytest.raises(WireError):
                cls.decode(bytes(data))
        else:
            accepted += 1
            assert_same(cls.decode(bytes(data)), theirs)
    assert accepted > 100
    assert refused > 100


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data):
    for cls in MESSAGES:
        with contextlib.suppress(WireError):
            cls.decode(data)


def test_unpacked_lists_and_unknown_fields_are_read():
    data = b"\x19" + struct.pack("<d", 1.5) + b"\xf8\x3f\x07" + b"\x1a\x08" + struct.pack("<d", 2.5)
    assert pb.StepReply.decode(data).parts == [1.5, 2.5]


def test_groups_are_skipped_and_bounded():
    group = b"\xa3\x06\x08\x01\xab\x06\x0a\x01x\xac\x06\xa4\x06"  # 100 { 1: 1  101 { 1: "x" } }
    assert pb.HelloReply.decode(group + b"\x08\x05").protocol_major == 5
    with pytest.raises(WireError, match="nested"):
        pb.HelloReply.decode(b"\xa3\x06" * 100000)


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (pb.StepRequest(seq=-1), "StepRequest.seq"),
        (pb.StepRequest(rows=1 << 32), "StepRequest.rows"),
        (pb.StepRequest(session=3), "StepRequest.session"),  # type: ignore[arg-type]
        (pb.OpenSessionRequest(arena_fd=1 << 31), "arena_fd"),
        (pb.StepReply(value="x"), "StepReply.value"),  # type: ignore[arg-type]
    ],
)
def test_values_out_of_range_are_refused(message, match):
    with pytest.raises(WireError, match=match):
        message.encode()


def test_every_message_is_a_slotted_dataclass():
    for cls in MESSAGES:
        assert dataclasses.is_dataclass(cls)
        assert not hasattr(cls(), "__dict__")


def test_a_numbered_request():
    request = pb.StepRequest(session="s", rows=3, student=pb.Region(64, 2, pb.DType.FLOAT32), no_gradient=True)
    for seq in (1, 127, 128, 1 << 40):
        want = dataclasses.replace(request, seq=seq)
        assert pb.StepRequest.decode(pb.StepRequest.numbered(request.encode(), seq)) == want

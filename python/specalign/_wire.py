"""A proto3 codec for the handful of messages of `specalign.v1` and of go-plugin.

Four scalar encodings and one level of nesting do not justify a run-time dependency whose major version must agree
with every other package of a training environment. Field numbers and types are those of
plugin/proto/specalign.proto; the tests compare this file with Google's implementation message by message.

As the specification demands: unknown fields are skipped, the last value of a repeated scalar wins, repeated embedded
messages merge, packed and unpacked lists are both read, a field whose wire type is not the declared one counts as
unknown. Malformed input raises `WireError`.
"""

from __future__ import annotations

import dataclasses
import struct
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from ._errors import WireError

M = TypeVar("M", bound="Message")

_VARINT, _I64, _LEN, _SGROUP, _EGROUP, _I32 = range(6)  # wire types
_MAX_DEPTH = 100  # of nested groups and messages, as in other implementations
_U64 = (1 << 64) - 1
_double = struct.Struct("<d").unpack_from


class Kind(IntEnum):
    """How a field's value is encoded."""

    UINT32 = 0
    UINT64 = 1
    INT32 = 2
    INT64 = 3
    BOOL = 4
    DOUBLE = 5
    STRING = 6
    BYTES = 7
    DOUBLES = 8  # repeated double, packed
    STRINGS = 9  # repeated string
    MESSAGE = 10


_INTEGERS = {  # kind: smallest, largest
    Kind.UINT32: (0, (1 << 32) - 1),
    Kind.UINT64: (0, _U64),
    Kind.INT32: (-(1 << 31), (1 << 31) - 1),
    Kind.INT64: (-(1 << 63), (1 << 63) - 1),
}


_DEFAULTS = {Kind.BOOL: False, Kind.DOUBLE: 0.0, Kind.STRING: "", Kind.BYTES: b"", Kind.MESSAGE: None}


class Field(NamedTuple):
    """A field of a message: its Python name, its encoding and, for `Kind.MESSAGE`, its type."""

    name: str
    kind: Kind
    message: type[Message] | None = None


def wire(number: int, kind: Kind, message: type[Message] | None = None) -> Any:
    """Declare a field of a message: its number, its encoding and, for `Kind.MESSAGE`, its type.

    The value is a dataclass field whose default is the one of proto3.
    """
    spec = {"number": number, "kind": kind, "message": message}
    if kind in (Kind.DOUBLES, Kind.STRINGS):
        return dataclasses.field(default_factory=list, metadata=spec)
    return dataclasses.field(default=_DEFAULTS.get(kind, 0), metadata=spec)


_layouts: dict[type, dict[int, Field]] = {}


def _layout(cls: type[Message]) -> dict[int, Field]:
    """Return the fields of a message by number, in the order of declaration."""
    layout = _layouts.get(cls)
    if layout is None:
        layout = _layouts[cls] = {
            f.metadata["number"]: Field(f.name, f.metadata["kind"], f.metadata["message"])
            for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        }
    return layout


# Kinds as plain numbers: to look up a member of an enumeration takes longer than most of what is done with it, and the
# trainer waits while a step's reply is read.
_UINT32, _INT32, _INT64, _BOOL = int(Kind.UINT32), int(Kind.INT32), int(Kind.INT64), int(Kind.BOOL)
_DOUBLE, _DOUBLES = int(Kind.DOUBLE), int(Kind.DOUBLES)
_STRING, _STRINGS, _BYTES = int(Kind.STRING), int(Kind.STRINGS), int(Kind.BYTES)
_ONE_OF_DOUBLES, _SKIPPED = 100, 101  # of an unpacked list, and a field that is unknown
_UNKNOWN = "", _SKIPPED, None

_tables: dict[type, dict[int, tuple[str, int, Any]]] = {}


def _tags(cls: type[Message]) -> dict[int, tuple[str, int, Any]]:
    """Return name, kind and type of the fields of a message by the tags that they may have."""
    tags = _tables.get(cls)
    if tags is None:
        tags = _tables[cls] = {}
        for number, (name, kind, message) in _layout(cls).items():
            wire = _VARINT if kind <= _BOOL else _I64 if kind == _DOUBLE else _LEN
            tags[number << 3 | wire] = name, int(kind), message
            if kind == _DOUBLES:
                tags[number << 3 | _I64] = name, _ONE_OF_DOUBLES, None
    return tags


class Message:
    """Base class of the messages; a subclass is a dataclass whose fields are declared with `wire`."""

    __slots__ = ()

    def encode(self) -> bytes:
        """Return the message's bytes. A value outside its field's range raises `WireError`."""
        out = bytearray()
        for number, spec in _layout(type(self)).items():
            value = getattr(self, spec.name)
            try:
                _encode_field(out, number, spec, value)
            except (TypeError, ValueError, AttributeError, struct.error) as e:
                raise WireError(f"{type(self).__name__}.{spec.name} cannot hold {value!r}: {e}") from None
        return bytes(out)

    @classmethod
    def decode(cls: type[M], data: bytes) -> M:
        """Read a message. Malformed bytes raise `WireError`."""
        message = cls()
        message._merge(bytes(data), 0)
        return message

    def _merge(self, data: bytes, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise WireError("messages are nested too deeply")
        name, tags = type(self).__name__, _tags(type(self))
        pos, end = 0, len(data)
        value: Any
        while pos < end:
            tag = data[pos]  # most tags have one byte
            if tag < 0x80:
                pos += 1
            else:
                tag, pos = _read_varint(data, pos, name)
            field, kind, message = tags.get(tag, _UNKNOWN)
            if kind == _DOUBLE:
                if end - pos < 8:
                    _take(data, pos, 8, name)  # says what is wrong
                setattr(self, field, _double(data, pos)[0])
                pos += 8
            elif kind <= _BOOL:
                value, pos = _read_varint(data, pos, name)
                setattr(self, field, _integer(kind, value))
            elif kind == _STRING:
                value, pos = _read_bytes(data, pos, name)
                setattr(self, field, _text(value, name, field))
            elif kind == _SKIPPED:
                pos = _skip(data, pos, tag, depth, name)
            elif kind == _ONE_OF_DOUBLES:
                value, pos = _take(data, pos, 8, name)
                getattr(self, field).append(_double(value)[0])
            else:
                value, pos = _read_bytes(data, pos, name)
                if kind == _DOUBLES:
                    if len(value) % 8:
                        raise WireError(f"{name}.{field}: {len(value)} bytes are no whole number of doubles")
                    getattr(self, field).extend(struct.unpack(f"<{len(value) // 8}d", value))
                elif kind == _STRINGS:
                    getattr(self, field).append(_text(value, name, field))
                elif kind == _BYTES:
                    setattr(self, field, value)
                else:
                    inner = getattr(self, field)
                    if inner is None:
                        inner = message()
                        setattr(self, field, inner)
                    inner._merge(value, depth + 1)


def _encode_field(out: bytearray, number: int, spec: Field, value: Any) -> None:
    kind = spec.kind
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        if not low <= value <= high:
            raise ValueError(f"out of range {low} to {high}")
        if value:
            _write_varint(out, number << 3 | _VARINT)
            _write_varint(out, int(value) & _U64)
    elif kind == Kind.BOOL:
        if value:
            _write_varint(out, number << 3 | _VARINT)
            out.append(1)
    elif kind == Kind.DOUBLE:
        packed = struct.pack("<d", value)
        if packed != bytes(8):  # the default is +0 only: -0 travels
            _write_varint(out, number << 3 | _I64)
            out += packed
    elif kind == Kind.DOUBLES:
        if value:
            _write_bytes(out, number, struct.pack(f"<{len(value)}d", *value))
    elif kind == Kind.STRINGS:
        for text in value:
            _write_bytes(out, number, text.encode())
    elif kind == Kind.MESSAGE:
        if value is not None:
            _write_bytes(out, number, value.encode())
    elif value:
        _write_bytes(out, number, value.encode() if kind == Kind.STRING else value)


def varint_field(number: int, value: int) -> bytes:
    """Return the bytes of an integer's field."""
    out = bytearray()
    _write_varint(out, number << 3 | _VARINT)
    _write_varint(out, value)
    return bytes(out)


def _write_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _write_bytes(out: bytearray, number: int, value: bytes) -> None:
    _write_varint(out, number << 3 | _LEN)
    _write_varint(out, len(value))
    out += value


def _read_varint(data: bytes, pos: int, name: str) -> tuple[int, int]:
    if pos < len(data) and data[pos] < 0x80:  # most numbers have one byte
        return data[pos], pos + 1
    value, shift = 0, 0
    while pos < len(data):
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64, pos  # as others do, a tenth byte's surplus bits are dropped
        shift += 7
        if shift > 63:
            break
    else:
        raise WireError(f"{name}: ends inside a number")
    raise WireError(f"{name}: the number before byte {pos} does not end")


def _take(data: bytes, pos: int, size: int, name: str) -> tuple[bytes, int]:
    if size > len(data) - pos:
        raise WireError(f"{name}: a field at byte {pos} wants {size} bytes, {len(data) - pos} are left")
    return data[pos : pos + size], pos + size


def _read_bytes(data: bytes, pos: int, name: str) -> tuple[bytes, int]:
    size, pos = _read_varint(data, pos, name)
    return _take(data, pos, size, name)


def _skip(data: bytes, pos: int, tag: int, depth: int, name: str) -> int:
    """Return where the field ends that begins at `pos`, behind its tag."""
    number, wire = tag >> 3, tag & 7
    if not 0 < number < 1 << 29:
        raise WireError(f"{name}: field number {number} is not allowed")
    if wire == _VARINT:
        return _read_varint(data, pos, name)[1]
    if wire == _LEN:
        return _read_bytes(data, pos, name)[1]
    if wire in (_I64, _I32):
        return _take(data, pos, 8 if wire == _I64 else 4, name)[1]
    if wire != _SGROUP:
        raise WireError(f"{name}: wire type {wire} before byte {pos} is not allowed here")
    if depth >= _MAX_DEPTH:
        raise WireError(f"{name}: groups are nested too deeply")
    while pos < len(data):
        inner, pos = _read_varint(data, pos, name)
        if inner & 7 == _EGROUP and 0 < inner >> 3 < 1 << 29:
            if inner >> 3 != number:
                raise WireError(f"{name}: group {number} is closed as {inner >> 3}")
            return pos
        pos = _skip(data, pos, inner, depth + 1, name)
    raise WireError(f"{name}: ends inside a group")


def _integer(kind: int, value: int) -> int | bool:
    if kind == _BOOL:
        return value != 0
    if kind == _UINT32:
        return value & 0xFFFFFFFF
    if kind == _INT32:
        value &= 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value
    if kind == _INT64:
        return value - (1 << 64) if value >> 63 else value
    return value


def _text(value: bytes, message: str, name: str) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise WireError(f"{message}.{name} is not UTF-8") from None

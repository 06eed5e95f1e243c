"""The frames between the core and a worker, as bytes.

`docs/worker-protocol.md` is the description; this module is its form.  It takes
bytes apart and puts them together and does nothing else: no socket, no thread,
no knowledge of services.

**Invariant:** a `Decoder` never looks behind the bytes it was given, and a
length above `MAX_LENGTH` or below a header's size is refused before memory is
taken for it.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Callable

from arint import jsons

HELLO = 1
CALL = 2
REPLY = 3
CANCEL = 4
DRAIN = 5
PING = 6
CONFIG = 7
CREDIT = 8
READY = 17
FAILED = 18
RESULT = 19
REQUEST = 20
LOG = 21
PONG = 22
CHUNK = 23
END = 24
STEP = 25

#: The most a frame's `length` may say.
MAX_LENGTH = 256 * 1024 * 1024

_HEAD = Struct("<IBQ")
_HEAD_META = Struct("<IBQI")
_TWO = Struct("<II")
_ONE = Struct("<I")

#: Bytes of a frame in front of its payload.
HEAD_SIZE = _HEAD.size
_BEHIND_LENGTH = HEAD_SIZE - 4

# Read at once from the socket.  Frames above this get a buffer of their own.
_BUFFER = 256 * 1024
# Payloads up to this are copied out, so that the buffer is free again.
_SMALL = 64 * 1024

#: kind, id, payload
Frame = tuple[int, int, "bytes | memoryview"]


class FrameError(Exception):
    """The bytes cannot be a frame of this protocol."""


class Decoder:
    """Takes frames out of a stream.

    `fill` is given something that reads into a buffer (a socket's `recv_into`);
    `next` gives the next whole frame, or None when more bytes are needed.
    """

    __slots__ = ("_buf", "_view", "_start", "_end", "_last", "_big", "_big_end")

    def __init__(self) -> None:
        self._buf = bytearray(_BUFFER)
        self._view = memoryview(self._buf)
        self._start = 0
        self._end = 0
        self._last: Frame | None = None
        self._big: bytearray | None = None
        self._big_end = 0

    def fill(self, recv_into: Callable[[memoryview], int]) -> int:
        """Reads once; returns the number of bytes, 0 at the end of the stream."""
        if self._big is not None:
            got = recv_into(memoryview(self._big)[self._big_end :])
            self._big_end += got
            return got
        start = self._start
        if start:
            left = self._end - start
            if left:
                self._buf[:left] = self._buf[start : self._end]
            self._start = 0
            self._end = left
        got = recv_into(self._view[self._end :])
        self._end += got
        return got

    def next(self) -> Frame | None:
        """The next frame, or None when it has not arrived whole."""
        last = self._last
        if last is not None:
            self._last = None
            return last
        if self._big is not None:
            return self._next_big(self._big)
        start = self._start
        have = self._end - start
        if have < HEAD_SIZE:
            return None
        length, kind, ident = _HEAD.unpack_from(self._buf, start)
        if length < _BEHIND_LENGTH or length > MAX_LENGTH:
            raise FrameError(f"frame length {length} is not between {_BEHIND_LENGTH} and {MAX_LENGTH}")
        size = length + 4
        if have < size:
            if size > _BUFFER:
                self._big = bytearray(size)
                self._big[:have] = self._view[start : self._end]
                self._big_end = have
                self._start = self._end = 0
            return None
        self._start = stop = start + size
        return kind, ident, bytes(self._view[start + HEAD_SIZE : stop])

    def put_back(self, frame: Frame) -> None:
        """Gives a frame back; `next` will return it again."""
        assert self._last is None
        self._last = frame

    def _next_big(self, big: bytearray) -> Frame | None:
        if self._big_end < len(big):
            return None
        _, kind, ident = _HEAD.unpack_from(big, 0)
        self._big = None
        return kind, ident, memoryview(big)[HEAD_SIZE:]


def split_call(payload: bytes | memoryview) -> tuple[str, bytes, bytes]:
    """A CALL's payload as meta (JSON text), http (JSON bytes) and body."""
    if len(payload) < 8:
        raise FrameError("call frame is too short for its two lengths")
    meta_len, http_len = _TWO.unpack_from(payload)
    http_at = 8 + meta_len
    body_at = http_at + http_len
    if body_at > len(payload):
        raise FrameError("call frame is shorter than its lengths say")
    return (
        str(payload[8:http_at], "utf-8"),
        bytes(payload[http_at:body_at]),
        bytes(payload[body_at:]),
    )


def split_meta(payload: bytes | memoryview) -> tuple[dict[str, Any], bytes]:
    """A meta+body payload as its meta and body."""
    if len(payload) < 4:
        raise FrameError("frame is too short for its meta length")
    (meta_len,) = _ONE.unpack_from(payload)
    body_at = 4 + meta_len
    if body_at > len(payload):
        raise FrameError("frame is shorter than its meta length says")
    meta = jsons.loads(str(payload[4:body_at], "utf-8"))
    if not isinstance(meta, dict):
        raise FrameError("frame meta is not a JSON object")
    return meta, bytes(payload[body_at:])


def with_meta(kind: int, ident: int, meta: bytes, body: bytes) -> bytes:
    """A frame of the form meta+body."""
    meta_len = len(meta)
    return _HEAD_META.pack(_BEHIND_LENGTH + 4 + meta_len + len(body), kind, ident, meta_len) + meta + body


def with_json(kind: int, ident: int, document: object) -> bytes:
    """A frame whose payload is one JSON document."""
    payload = jsons.dumps(document).encode("utf-8", "surrogatepass")
    return _HEAD.pack(_BEHIND_LENGTH + len(payload), kind, ident) + payload


def plain(kind: int, ident: int, payload: bytes) -> bytes:
    """A frame whose payload is bytes."""
    return _HEAD.pack(_BEHIND_LENGTH + len(payload), kind, ident) + payload


def empty(kind: int, ident: int) -> bytes:
    """A frame without a payload."""
    return _HEAD.pack(_BEHIND_LENGTH, kind, ident)


def call(ident: int, meta: bytes, http: bytes, body: bytes) -> bytes:
    """A CALL frame.  The core makes these; here for tests and measurements."""
    payload = _TWO.pack(len(meta), len(http)) + meta + http + body
    return _HEAD.pack(_BEHIND_LENGTH + len(payload), CALL, ident) + payload

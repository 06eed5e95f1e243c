"""The frame decoder against every way a stream can be cut, and against bytes that are no frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
from arint import frames
from harness import raw_head
from hypothesis import given, settings
from hypothesis import strategies as st


class Stream:
    """Gives bytes in pieces of the sizes told, then of any size."""

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        self.data = data
        self.cuts = list(cuts)

    def recv_into(self, view: memoryview) -> int:
        size = min(self.cuts.pop(0) if self.cuts else len(self.data), len(view), len(self.data))
        view[:size] = self.data[:size]
        self.data = self.data[size:]
        return size


def decode_all(stream: Stream) -> list[tuple[int, int, bytes]]:
    decoder = frames.Decoder()
    out = []
    while True:
        frame = decoder.next()
        if frame is not None:
            out.append((frame[0], frame[1], bytes(frame[2])))
        elif decoder.fill(stream.recv_into) == 0:
            return out


frame_strategy = st.tuples(
    st.integers(0, 255), st.integers(0, 2**64 - 1), st.one_of(st.binary(max_size=300), st.just(b"x" * 300_000))
)


@settings(max_examples=150, deadline=None)
@given(st.lists(frame_strategy, max_size=6), st.lists(st.integers(1, 400_000), max_size=40))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(sent: Any, cuts: list[int]) -> None:
    """Round trip, with cuts inside heads and inside payloads above the buffer's size."""
    data = b"".join(raw_head(9 + len(payload), kind, ident) + payload for kind, ident, payload in sent)
    assert decode_all(Stream(data, cuts)) == sent


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=20))
def test_any_bytes_are_frames_or_refused_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    """No bytes make the decoder raise anything but FrameError."""
    try:
        out = decode_all(Stream(data, cuts))
    except frames.FrameError:
        return
    assert sum(13 + len(payload) for _, _, payload in out) <= len(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_payload_of_a_call_is_taken_apart_or_refused(payload: bytes) -> None:
    """Wrong inner lengths and bad JSON are refused; a good split loses nothing."""
    for split in (frames.split_call, frames.split_meta):
        try:
            parts = split(payload)
        except (frames.FrameError, UnicodeDecodeError, json.JSONDecodeError):
            continue
        assert payload.endswith(parts[-1])  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 8, frames.MAX_LENGTH + 1, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused_before_memory_is_taken(length: int) -> None:
    """Lengths below a head's rest and above the limit."""
    with pytest.raises(frames.FrameError, match=rf"^frame length {length} is not between 9 and 268435456$"):
        decode_all(Stream(raw_head(length, 1, 1), []))


def test_a_frame_that_was_put_back_comes_again_first() -> None:
    """What a waiting leader does with a call that is not for it."""
    decoder = frames.Decoder()
    decoder.fill(Stream(frames.empty(6, 1) + frames.empty(6, 2), []).recv_into)
    first = decoder.next()
    assert first is not None
    decoder.put_back(first)
    assert decoder.next() == first
    assert decoder.next() == (6, 2, b"")


def test_with_meta_and_split_meta_are_each_others_inverse() -> None:
    """The form of RESULT and REQUEST."""
    frame = frames.with_meta(frames.RESULT, 5, b'{"status":200}', b"body")
    assert frames.split_meta(frame[frames.HEAD_SIZE :]) == ({"status": 200}, b"body")

"""Answers that are sent piece by piece: a generator or another iterator as payload.

The first piece is made before anything is sent, so that what goes wrong until
then is an answer like any other.  From there on a worker may be `WINDOW` bytes
ahead of the client; the core tells by CREDIT what the client has taken.

Without a content type of its own, an iterator of bytes is a file and anything
else a stream of server-sent events.

**Invariant:** when the client goes away the generator is closed: its `finally`
blocks run.
"""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING, Any, Callable, Iterator

from arint import frames, jsons
from arint.errors import ZatoException

if TYPE_CHECKING:
    from arint.call import Call
    from arint.runtime import Runtime

__all__ = ["Event", "Stream"]

#: Bytes a worker may send before the client has taken any: docs/worker-protocol.md.
WINDOW = 256 * 1024
_PIECE = 64 * 1024
_FIELDS = ("data:", "event:", "id:", "retry:", ":")
_EVENTS = "text/event-stream"
_LINES = ("application/x-ndjson", "application/jsonl", "application/json-lines")
_DONE: Any = object()


class Event:
    """One server-sent event: `yield Event({'n': 1}, event='tick', id='7')`.

    `data` may be anything that JSON can hold; text is sent as it is.  `retry` is
    in milliseconds: how long a client waits before it connects again.
    """

    __slots__ = ("data", "event", "id", "retry")

    def __init__(self, data: Any = "", event: str | None = None, id: Any = None, retry: int | None = None) -> None:
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry


def is_stream(kind: type) -> bool:
    """Whether objects of this type are streamed."""
    return hasattr(kind, "__next__") or hasattr(kind, "__anext__")


# What goes over the wire


def as_event(item: Any) -> bytes:
    """An item as a server-sent event."""
    fields: list[str] = []
    if isinstance(item, Event):
        for name in ("event", "id", "retry"):
            value = getattr(item, name)
            if value is not None:
                # A line break would begin a field of its own.
                fields.append(f"{name}: {str(value).replace(chr(13), ' ').replace(chr(10), ' ')}")
        item = item.data
    elif item is None:
        return b":\n\n"
    if isinstance(item, (bytes, bytearray, memoryview)):
        item = bytes(item).decode("utf-8")
    if isinstance(item, str):
        if not item and not fields:
            return b""
        if not fields and item.endswith("\n\n") and item.startswith(_FIELDS):
            return item.encode("utf-8", "surrogatepass")
        text = item
    else:
        text = jsons.dumps(item)
    fields.extend(f"data: {line}" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return ("\n".join(fields) + "\n\n").encode("utf-8", "surrogatepass")


def as_piece(item: Any) -> bytes:
    """An item as a part of a body of any other kind."""
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode("utf-8", "surrogatepass")
    if isinstance(item, (bytearray, memoryview)):
        return bytes(item)
    if item is None:
        return b""
    if isinstance(item, Event):
        raise ZatoException(None, f"an `Event` can be sent only where the content type is `{_EVENTS}`")
    return jsons.dumps(item).encode("utf-8", "surrogatepass")


def as_line(item: Any) -> bytes:
    """An item as a line of JSON."""
    if isinstance(item, (str, bytes)):
        return as_piece(item)
    return jsons.dumps(item).encode("utf-8", "surrogatepass") + b"\n"


def _form_of(content_type: str | None, first: Any) -> tuple[str, Callable[[Any], bytes]]:
    if content_type is None:
        if isinstance(first, (bytes, bytearray, memoryview)):
            return "application/octet-stream", as_piece
        return _EVENTS, as_event
    bare = content_type.partition(";")[0].strip().lower()
    if bare == _EVENTS:
        return content_type, as_event
    return content_type, as_line if bare in _LINES else as_piece


def _read_file(file: Any) -> Iterator[Any]:
    try:
        while True:
            piece = file.read(_PIECE)
            if not piece:
                return
            yield piece
    finally:
        file.close()


# Beginning


def begin(call: Call, response: Any, payload: Any) -> tuple[bytes, Any]:
    """A RESULT's meta and the stream behind it; the whole body where a stream cannot be taken."""
    if hasattr(payload, "__anext__"):
        raise TypeError("an asynchronous generator can be a payload only in `async def handle`")
    items = _items(response, payload)
    if call.channel != "http-soap":
        return _joined(response, list(items))
    return _begun(call, response, items, next(items, _DONE))


async def begin_async(call: Call, response: Any, payload: Any) -> tuple[bytes, Any]:
    """The same on the event loop, where the generator may be asynchronous."""
    if not hasattr(payload, "__anext__"):
        payload = _on_a_thread(_items(response, payload))
    if call.channel != "http-soap":
        return _joined(response, [item async for item in payload])
    return _begun(call, response, payload, await anext(payload, _DONE))


def _items(response: Any, payload: Any) -> Iterator[Any]:
    if hasattr(payload, "read"):
        if "content_type" not in response.__dict__ and hasattr(payload, "encoding"):
            response.content_type = "text/plain; charset=utf-8"
        return _read_file(payload)
    return payload  # type: ignore[no-any-return]


async def _on_a_thread(items: Iterator[Any]) -> Any:
    import asyncio
    import contextvars

    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    try:
        while True:
            item = await loop.run_in_executor(None, lambda: context.run(next, items, _DONE))
            if item is _DONE:
                return
            yield item
    finally:
        _close(items)


def _joined(response: Any, items: list[Any]) -> tuple[bytes, bytes]:
    content_type = response.__dict__.get("content_type")
    if all(isinstance(item, str) for item in items):
        content_type, body = content_type or "text/plain", as_piece("".join(items))
    elif all(isinstance(item, bytes) for item in items):
        content_type, body = content_type or "application/octet-stream", b"".join(items)
    else:
        plain = [item.data if isinstance(item, Event) else item for item in items]
        content_type, body = "application/json", as_piece(plain)
    return _meta(response, content_type, False), body


def _begun(call: Call, response: Any, items: Any, first: Any) -> tuple[bytes, Any]:
    content_type, encode = _form_of(response.__dict__.get("content_type"), "" if first is _DONE else first)
    meta = _meta(response, content_type, True)
    return meta, Stream(call, items, encode, b"" if first is _DONE else encode(first), first is _DONE)


def _meta(response: Any, content_type: str, is_stream: bool) -> bytes:
    from arint import life

    headers = life.wire_headers(response.__dict__.get("headers"))
    for name in list(headers):
        if name.lower() == "content-type":
            del headers[name]
    encoding = response.__dict__.get("content_encoding")
    if encoding:
        headers.setdefault("Content-Encoding", encoding)
    if content_type.startswith(_EVENTS) and not any(name.lower() == "cache-control" for name in headers):
        headers["Cache-Control"] = "no-store"
    document = {
        "status": int(response.__dict__.get("status_code", 200)),
        "content_type": content_type,
        "headers": headers,
        "stream": is_stream,
    }
    return jsons.dumps(document).encode("utf-8", "surrogatepass")


# Sending


class Stream:
    """What is still to come of an answer."""

    __slots__ = ("call", "items", "encode", "first", "is_done", "left", "lock", "wake")

    def __init__(self, call: Call, items: Any, encode: Callable[[Any], bytes], first: bytes, is_done: bool) -> None:
        self.call = call
        self.items = items
        self.encode = encode
        self.first = first
        self.is_done = is_done
        self.left = WINDOW
        self.lock = _thread.allocate_lock()
        #: Told when there is credit, or nobody wants more.
        self.wake: Callable[[], None] | None = None

    def grant(self, count: int) -> None:
        """So many bytes more may be sent."""
        with self.lock:
            self.left += count
            wake, self.wake = self.wake, None
        if wake is not None:
            wake()

    def cancel(self) -> None:
        """Nobody wants more; the call is marked already."""
        self.grant(0)

    def run(self, there: Runtime, meta: bytes) -> None:
        """Sends it all, on the thread that ran the service."""
        call = self.call
        error = None
        there.streams[call.ident] = self
        try:
            if self._head(there, meta):
                first, self.first = self.first, b""
                self._send(there, first[_PIECE:])
            while not self.is_done and not call.cancelled:
                item = next(self.items, _DONE)
                if item is _DONE:
                    break
                self._send(there, self.encode(item))
        except BaseException as exc:
            error = self._failed(exc)
        finally:
            _close(self.items)
            del there.streams[call.ident]
        self._end(there, error)

    def _send(self, there: Runtime, data: bytes) -> None:
        from arint.runtime import Waiter

        view = memoryview(data)
        while view and not self.call.cancelled:
            with self.lock:
                waiter = None
                if self.left <= 0:
                    waiter = Waiter()
                    self.wake = _waker(waiter)
            if waiter is not None:
                there.wait(waiter)
                continue
            view = self._piece(there, view)

    async def run_async(self, there: Runtime, meta: bytes) -> None:
        """The same on the event loop."""
        import asyncio

        call = self.call
        error = None
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        there.streams[call.ident] = self
        has_credit = asyncio.Event()

        def wake() -> None:
            if call.cancelled:
                # Ends whatever the generator waits for.
                loop.call_soon_threadsafe(task.cancel)
            else:
                loop.call_soon_threadsafe(has_credit.set)

        try:
            data = b""
            if self._head(there, meta):
                data, self.first = self.first[_PIECE:], b""
            while True:
                view = memoryview(data)
                while view and not call.cancelled:
                    has_credit.clear()
                    with self.lock:
                        self.wake = wake
                        must_wait = self.left <= 0
                    if must_wait:
                        await has_credit.wait()
                    else:
                        view = self._piece(there, view)
                if self.is_done or call.cancelled:
                    break
                with self.lock:
                    self.wake = wake
                item = await anext(self.items, _DONE)
                if item is _DONE:
                    break
                data = self.encode(item)
        except asyncio.CancelledError:
            task.uncancel()
            error = "it was cancelled"
        except BaseException as exc:
            error = self._failed(exc)
        finally:
            with self.lock:
                self.wake = None
            try:
                await self.items.aclose()
            except Exception as exc:
                self._failed(exc)
            del there.streams[call.ident]
        self._end(there, error)

    def _head(self, there: Runtime, meta: bytes) -> bool:
        if self.call.cancelled:
            return False
        there.send_result(self.call.ident, meta, self.first[:_PIECE])
        return True

    def _piece(self, there: Runtime, view: memoryview) -> memoryview:
        with self.lock:
            size = min(self.left, _PIECE, len(view))
            self.left -= size
        there.send(frames.plain(frames.CHUNK, self.call.ident, bytes(view[:size])))
        return view[size:]

    def _end(self, there: Runtime, error: str | None) -> None:
        if not self.call.cancelled:
            document = {} if error is None else {"error": error}
            there.send(frames.with_json(frames.END, self.call.ident, document))

    def _failed(self, exc: BaseException) -> str:
        from arint import life

        message = f"its generator raised {life._message(exc)}"
        try:
            life.log_failure(self.call.plan, 500, message, exc)
        except Exception:
            # Reporting must not fail where the service already has.
            return message
        return message


def _waker(waiter: Any) -> Callable[[], None]:
    return lambda: waiter.deliver({}, b"")


def _close(items: Any) -> None:
    """Runs a generator's `finally` blocks now."""
    close = getattr(items, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception:
        import logging

        logging.getLogger("arint").exception("a generator failed while it was closed")

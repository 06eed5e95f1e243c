"""The worker's threads: who reads frames, who runs services, who waits.

One pool of threads does both reading and running.  The *leader* reads frames and
runs the services they ask for itself, one after another: no queue and no switch
between threads lies between a frame and its service.  Whoever has to wait gives
the lead away first:

* a request to the core (`request`): the leader goes on reading while it waits,
  and gives the lead away only when another call arrives before its reply;
* any other blocking step of the SDK (`block`): at once;
* a service that blocks or computes by itself: the main thread looks every 2 ms
  whether the leader is still at the same call, and then takes the lead from it.

While a leader runs a service its `token` lies in its own one-element list.
`list.pop` is atomic, so of leader, watcher and `block` exactly one gets it, and
whoever got it decides what becomes of the lead.

**Invariant:** at most one thread reads from the socket.
**Invariant:** a call's id stands in the slots file before the first line of its
service runs, and until its RESULT is with the kernel.
**Invariant:** a thread is always free to lead: of `limit + 1` threads at most
`limit` run services; calls above that wait in `backlog`.
"""

from __future__ import annotations

import _thread
import mmap
import os
import socket
import sys
import threading
import time
from collections import deque
from contextvars import ContextVar
from itertools import count
from typing import Any, Callable, NoReturn

from arint import frames, jsons
from arint.errors import NotSupported, ZatoException

_SLOTS = 1024
_SLOTS_SIZE = 8 * (_SLOTS + 1)
# Threads take one slot each; the rest is for coroutines.
_MOST_THREADS = 768
_WATCH_EVERY_S = 0.002
# Looks without a busy leader before the watcher sleeps until the next call.
_WATCH_IDLE_LOOKS = 4
_IDLE_THREAD_S = 30.0
# CPython 3.13 lets C code recurse 10,000 levels deep whatever the recursion limit says: with less than 2 MiB a deeply
# nested JSON body is a crash there.  Up to 3.12 its own parser needs the most, above 512 KiB.  Only what is touched
# takes memory, but all of it counts against RLIMIT_DATA.
_STACK = (1 if sys.version_info < (3, 13) else 4) * 1024 * 1024

# Kept before `guard` replaces it.
_really_exit = os._exit

#: The call of this coroutine, or of a function that was started from it.
current_call: ContextVar[Any] = ContextVar("arint_call", default=None)


class Worker(threading.local):
    """What belongs to the thread that asks."""

    member: Member | None = None


here = Worker()


def call_here() -> Any:
    """The call that this thread or coroutine works for, or None."""
    member = here.member
    if member is not None:
        return member.call
    return current_call.get()


class Member:
    """One thread of the pool."""

    __slots__ = ("token", "wake", "call", "slot", "ident", "native_id")

    def __init__(self, slot: int) -> None:
        self.token: list[int] = []
        self.wake = _thread.allocate_lock()
        self.wake.acquire()
        self.call: Any = None
        self.slot = slot
        self.ident = 0
        self.native_id = 0


class Waiter:
    """A REQUEST on its way: either a thread waits or a function is told."""

    __slots__ = ("lock", "meta", "body", "tell")

    def __init__(self, tell: Callable[[dict[str, Any], bytes], None] | None = None) -> None:
        self.meta: dict[str, Any] | None = None
        self.body = b""
        self.tell = tell
        self.lock = _thread.allocate_lock()
        self.lock.acquire()

    def deliver(self, meta: dict[str, Any], body: bytes) -> None:
        self.meta = meta
        self.body = body
        if self.tell is not None:
            self.tell(meta, body)
        self.lock.release()


class Runtime:
    """The connection to the core, and the threads around it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = frames.Decoder()
        self.write_lock = _thread.allocate_lock()
        self.hello: dict[str, Any] = {}
        self.limit = 256
        self.slots: memoryview | None = None
        self.free_slots: deque[int] = deque(range(1, _SLOTS + 1))
        #: Calls that run in threads of the pool, by id.
        self.running: dict[int, Any] = {}
        #: Calls that run as coroutines, by id.
        self.coroutines: dict[int, Any] = {}
        self.pending: dict[int, Waiter] = {}
        #: Answers that are being sent piece by piece, by call id.
        self.streams: dict[int, Any] = {}
        #: How many more steps of a call the core is told of, where it was told of any.
        self.steps_left: dict[int, int] = {}
        self.request_ids = count(1)
        self.backlog: deque[tuple[int, bytes | memoryview]] = deque()
        # One for each call that may still begin in a thread of the pool.
        self.permits: list[int] = []
        self.idle: list[Member] = []
        self.members = 0
        #: The threads of the pool that live.
        self.alive: set[Member] = set()
        #: Calls that other threads work for, by the thread's ident.
        self.helping: dict[int, Any] = {}
        self.leader: Member | None = None
        self.spawn_lock = _thread.allocate_lock()
        self.watcher_sleeps = False
        self.watcher_wake = _thread.allocate_lock()
        self.watcher_wake.acquire()
        #: Functions that services have spawned and that still run.
        self.spawned: set[Any] = set()
        self.draining = False
        self.leave_lock = _thread.allocate_lock()
        self.loop_ident = 0
        # Set by the worker: makes a call of a frame, runs it, takes a CONFIG.
        self.make_call: Callable[[int, Any], Any] = _unset
        self.run_call: Callable[[Any], tuple[bytes, Any]] = _unset
        self.start_coroutine: Callable[[Any], None] = _unset
        self.take_config: Callable[[dict[str, Any]], None] = _unset

    # Sending

    def send(self, frame: bytes) -> None:
        """Hands a frame to the kernel, whole, whatever other threads send."""
        try:
            with self.write_lock:
                sent = self.sock.send(frame)
                if sent != len(frame):
                    self.sock.sendall(memoryview(frame)[sent:])
        except OSError:
            self.core_is_gone()

    def send_result(self, ident: int, meta: bytes, body: bytes) -> None:
        """Hands a RESULT to the kernel."""
        self.send(frames.with_meta(frames.RESULT, ident, meta, body))

    def core_is_gone(self) -> NoReturn:
        """Nobody is left to work for."""
        _really_exit(0)

    # Slots

    def open_slots(self, path: str | None) -> None:
        """Maps the slots file; without one (tests) a piece of memory stands in."""
        if path:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                mapped = mmap.mmap(fd, _SLOTS_SIZE)
            finally:
                os.close(fd)
            self.slots = memoryview(mapped).cast("Q")
        else:
            self.slots = memoryview(bytearray(_SLOTS_SIZE)).cast("Q")

    # Leading

    def start(self) -> None:
        """Starts the first leader."""
        threading.stack_size(_STACK)
        self.limit = max(1, min(int(self.hello.get("threads") or 256), _MOST_THREADS))
        self.permits = [1] * self.limit
        if not self.promote():
            raise RuntimeError("cannot start the first thread")

    def promote(self) -> bool:
        """Makes another thread the leader; False if there is none to be had.

        To be called only by whoever has the lead: the leader outside of a
        service, or the one that got its token.
        """
        try:
            member = self.idle.pop()
        except IndexError:
            return self._spawn()
        self.leader = member
        member.wake.release()
        return True

    def _spawn(self) -> bool:
        with self.spawn_lock:
            if self.members > self.limit:
                return False
            self.members += 1
        before = self.leader
        try:
            member = Member(self.free_slots.popleft())
            self.leader = member
            member.wake.release()
            threading.Thread(target=self._live, args=(member,), name=f"call-{member.slot}", daemon=True).start()
        except (RuntimeError, IndexError) as exc:
            self.leader = before
            with self.spawn_lock:
                self.members -= 1
            sys.stderr.write(f"cannot start another thread beside {self.members}: {exc}\n")
            return False
        return True

    def _live(self, member: Member) -> None:
        here.member = member
        member.ident = threading.get_ident()
        member.native_id = threading.get_native_id()
        self.alive.add(member)
        while True:
            if not member.wake.acquire(timeout=_IDLE_THREAD_S):
                try:
                    self.idle.remove(member)
                except ValueError:
                    # Somebody has just taken this thread; its wake follows.
                    member.wake.acquire()
                else:
                    self.alive.discard(member)
                    self.free_slots.append(member.slot)
                    with self.spawn_lock:
                        self.members -= 1
                    return
            try:
                self._lead(member)
                self._run_backlog(member)
            except BaseException:
                # The worker's own fault.  Without a reader it would hang.
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
                _really_exit(4)
            self.idle.append(member)

    def _lead(self, member: Member) -> None:
        decoder = self.decoder
        next_frame = decoder.next
        fill = decoder.fill
        recv_into = self.sock.recv_into
        make_call = self.make_call
        CALL = frames.CALL
        running = self.running
        permits = self.permits
        token = member.token
        while True:
            frame = next_frame()
            if frame is None:
                try:
                    got = fill(recv_into)
                except OSError:
                    got = 0
                if got == 0:
                    self.core_is_gone()
                continue
            kind, ident, payload = frame
            if kind != CALL:
                self._take(kind, ident, payload)
                continue
            try:
                permits.pop()
            except IndexError:
                self.backlog.append((ident, payload))
                # A thread may have ended its call before it could see this one.
                try:
                    permits.pop()
                except IndexError:
                    continue
                try:
                    ident, payload = self.backlog.popleft()
                except IndexError:
                    permits.append(1)
                    continue
            call = make_call(ident, payload)
            if call is None or call.plan.is_async:
                permits.append(1)
                if call is not None:
                    self._start_coroutine(call)
                continue
            member.call = call
            running[ident] = call
            token.append(1)
            if self.watcher_sleeps:
                self.wake_watcher()
            self._run(member, call)
            try:
                token.pop()
            except IndexError:
                return

    def _run(self, member: Member, call: Any) -> None:
        slots = self.slots
        assert slots is not None
        ident = call.ident
        slots[member.slot] = ident
        slots[0] = ident
        meta, body = self.run_call(call)
        if type(body) is not bytes:
            body.run(self, meta)
        elif not call.cancelled:
            self.send_result(ident, meta, body)
        slots[member.slot] = 0
        member.call = None
        del self.running[ident]
        if self.steps_left:
            self.steps_left.pop(ident, None)
        self.permits.append(1)
        if self.draining:
            self.leave_if_done()

    def _run_backlog(self, member: Member) -> None:
        """Runs calls that had to wait, in a thread that does not lead."""
        while self.backlog:
            try:
                self.permits.pop()
            except IndexError:
                return
            try:
                ident, payload = self.backlog.popleft()
            except IndexError:
                self.permits.append(1)
                return
            call = self.make_call(ident, payload)
            if call is None or call.plan.is_async:
                self.permits.append(1)
                if call is not None:
                    self._start_coroutine(call)
                continue
            member.call = call
            self.running[ident] = call
            self._run(member, call)

    def _start_coroutine(self, call: Any) -> None:
        slots = self.slots
        assert slots is not None
        try:
            call.slot = self.free_slots.popleft()
        except IndexError:
            self.send_result(
                call.ident,
                b'{"status":503,"headers":{},"error":{"details":"Service unavailable","type":"ServiceUnavailable",'
                b'"message":"too many coroutines run in this worker"}}',
                b"",
            )
            return
        self.coroutines[call.ident] = call
        slots[call.slot] = call.ident
        slots[0] = call.ident
        self.start_coroutine(call)

    def end_coroutine(self, call: Any, meta: bytes | None, body: bytes) -> None:
        """Sends a coroutine's RESULT, unless it was sent piece by piece, and gives its slot back."""
        assert self.slots is not None
        if meta is not None and not call.cancelled:
            self.send_result(call.ident, meta, body)
        self.slots[call.slot] = 0
        self.free_slots.append(call.slot)
        del self.coroutines[call.ident]
        self.steps_left.pop(call.ident, None)
        if self.draining:
            self.leave_if_done()

    def _take(self, kind: int, ident: int, payload: bytes | memoryview) -> None:
        """Any frame but CALL."""
        if kind == frames.REPLY:
            waiter = self.pending.pop(ident, None)
            if waiter is not None:
                waiter.deliver(*frames.split_meta(payload))
        elif kind == frames.PING:
            self.send(frames.empty(frames.PONG, ident))
        elif kind == frames.CANCEL:
            call = self.running.get(ident) or self.coroutines.get(ident)
            if call is not None:
                call.cancelled = True
                stream = self.streams.get(ident)
                if stream is not None:
                    stream.cancel()
            else:
                self._cancel_waiting(ident)
                if "arint.profile" in sys.modules:
                    sys.modules["arint.profile"].cancel(ident)
        elif kind == frames.CREDIT:
            stream = self.streams.get(ident)
            if stream is not None:
                stream.grant(int.from_bytes(payload, "little"))
        elif kind == frames.CONFIG:
            self.take_config(jsons.loads(str(payload, "utf-8")))
        elif kind == frames.DRAIN:
            self.draining = True
            self.leave_if_done()
        else:
            raise frames.FrameError(f"frame kind {kind} is not one a worker takes")

    def _cancel_waiting(self, ident: int) -> None:
        for entry in list(self.backlog):
            if entry[0] == ident:
                try:
                    self.backlog.remove(entry)
                except ValueError:
                    call = self.running.get(ident)
                    if call is not None:
                        call.cancelled = True
                return

    def leave_if_done(self) -> None:
        """Ends the process once it has been drained."""
        if len(self.permits) < self.limit or self.coroutines or self.backlog or self.spawned:
            return
        if not self.leave_lock.acquire(blocking=False):
            return
        import atexit

        if "arint.profile" in sys.modules:
            sys.modules["arint.profile"].finish()
        try:
            atexit._run_exitfuncs()
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):
                    continue
            _really_exit(0)

    # Waiting

    def block(self) -> None:
        """To be called before a blocking step: another thread leads from here on.

        Costs nothing on a thread that does not lead.
        """
        member = here.member
        if member is None:
            self.refuse_on_loop()
            return
        try:
            member.token.pop()
        except IndexError:
            return
        if not self.promote():
            member.token.append(1)

    def unblock(self) -> None:
        """To be called after a blocking step: this call runs again."""
        member = here.member
        if member is not None and member.call is not None:
            assert self.slots is not None
            self.slots[0] = member.call.ident

    def refuse_on_loop(self) -> None:
        """Raises on the thread of the event loop, where waiting would stop every coroutine."""
        if self.loop_ident and threading.get_ident() == self.loop_ident:
            raise NotSupported(
                "this call would block the event loop: in `async def handle` use `await self.aio.invoke(...)`, "
                "`await self.aio.rest['X'].get(...)` or `await self.aio.run(function, *args)`"
            )

    def ask(self, meta: dict[str, Any], body: bytes, tell: Callable[[dict[str, Any], bytes], None]) -> None:
        """Sends a REQUEST; `tell` is called with its reply, on the leader's thread."""
        ident = next(self.request_ids)
        self.pending[ident] = Waiter(tell)
        self.send(self._request_frame(ident, meta, body, current_call.get()))

    def _request_frame(self, ident: int, meta: dict[str, Any], body: bytes, call: Any) -> bytes:
        if call is not None:
            meta.setdefault("cid", call.cid)
            meta["call"] = call.ident
        else:
            meta.setdefault("cid", "")
            meta["call"] = 0
        return frames.with_meta(frames.REQUEST, ident, jsons.dumps(meta).encode("utf-8", "surrogatepass"), body)

    def request(self, meta: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Sends a REQUEST and waits for its reply: meta and body, whatever they say."""
        member = here.member
        if member is None:
            self.refuse_on_loop()
        ident = next(self.request_ids)
        waiter = self.pending[ident] = Waiter()
        self.send(self._request_frame(ident, meta, body, call_here()))
        self.wait(waiter)
        assert waiter.meta is not None
        return waiter.meta, waiter.body

    def wait(self, waiter: Waiter) -> None:
        """Waits until something is delivered; a leader goes on reading meanwhile."""
        member = here.member
        leads = False
        if member is not None:
            try:
                member.token.pop()
                leads = True
            except IndexError:
                pass
        if leads:
            assert member is not None
            if self._read_until(waiter):
                member.token.append(1)
                if self.watcher_sleeps:
                    self.wake_watcher()
            else:
                waiter.lock.acquire()
        else:
            waiter.lock.acquire()
        self.unblock()

    def _read_until(self, waiter: Waiter) -> bool:
        """Reads frames until the waiter's reply; False if the lead was given away before it."""
        decoder = self.decoder
        while waiter.meta is None:
            frame = decoder.next()
            if frame is None:
                try:
                    got = decoder.fill(self.sock.recv_into)
                except OSError:
                    got = 0
                if got == 0:
                    self.core_is_gone()
                continue
            kind, ident, payload = frame
            if kind != frames.CALL:
                self._take(kind, ident, payload)
                continue
            decoder.put_back(frame)
            if self.promote():
                return False
            # No thread to be had: this one goes on reading, the call waits.
            taken = decoder.next()
            assert taken is not None
            self.backlog.append((ident, payload))
        return True

    # Watching

    def watch(self) -> NoReturn:
        """Takes the lead from a leader that stays at one call.  The main thread's work."""
        sleep = time.sleep
        while True:
            self.watcher_sleeps = True
            leader = self.leader
            if leader is None or not leader.token:
                self.watcher_wake.acquire()
            # Else a call began between the last look and going to sleep.
            self.watcher_sleeps = False
            looks = 0
            seen: Any = None
            while looks < _WATCH_IDLE_LOOKS:
                sleep(_WATCH_EVERY_S)
                leader = self.leader
                call = leader.call if leader is not None else None
                if leader is None or call is None or not leader.token:
                    # Between calls, or reading while it waits for the core.
                    looks += 1
                    seen = None
                    continue
                looks = 0
                if call is not seen:
                    seen = call
                    continue
                seen = None
                try:
                    leader.token.pop()
                except IndexError:
                    continue
                if not self.promote():
                    leader.token.append(1)

    def wake_watcher(self) -> None:
        """To be called by a leader that begins to run a service while the watcher sleeps."""
        self.watcher_sleeps = False
        try:
            self.watcher_wake.release()
        except RuntimeError:
            # It has been woken already and has not run yet.
            pass


def _unset(*_: Any) -> Any:
    raise RuntimeError("the worker is not set up")


_runtime: Runtime | None = None


def install(runtime: Runtime) -> None:
    """Makes this the process's runtime."""
    global _runtime
    _runtime = runtime


def get() -> Runtime:
    """The process's runtime; raises where services run outside of a worker."""
    if _runtime is None:
        raise ZatoException(None, "this needs the core, and the service does not run in a worker")
    return _runtime


def maybe() -> Runtime | None:
    """The process's runtime, or None outside of a worker."""
    return _runtime

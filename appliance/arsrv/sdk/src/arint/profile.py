"""A statistical profile of this worker: what its threads are doing, so many times a second.

The core asks for it by a CALL of channel `profile` and gets the RESULT when the
time is over (docs/worker-protocol.md).  Only names, files and lines are taken;
no value of any variable is looked at.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any, Iterator

from arint import jsons, runtime

# Frames of one stack; deeper ones are cut at the outer end.
_DEEPEST = 100
# Different stacks that are told apart; what comes beyond is counted as one.
_MOST_STACKS = 20_000
# How long a look watches whether threads use the processor: what a thread did since the look before says nothing of a
# call that has only begun.
_GLANCE_S = 0.0002
# A thread that had the processor for this part of it was working.
_WORKING = 0.2
# The part of the time that looking may take; where a look takes long, there are fewer.
_MOST_SHARE = 0.05

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
# Threads of the SDK itself.
_OWN_THREADS = ("call-", "event-loop", "profile", "sql-")
_MARKS = ("/site-packages/", "/dist-packages/")

_lock = threading.Lock()
_running: Profile | None = None

#: The functions, the innermost first, and the line in that.
_Stack = tuple[tuple[CodeType, ...], int]
# Code is told apart by its `id`: its hash is made of all that is in it.
_Key = tuple[str, bool, tuple[int, ...], int]


def start(there: runtime.Runtime, ident: int, body: bytes) -> None:
    """Begins a profile for the CALL `ident`; its RESULT follows when it is over."""
    global _running
    wanted = jsons.loads(str(body or b"{}", "utf-8"))
    with _lock:
        if _running is not None:
            refused = {"status": 409, "headers": {}, "error": {"type": "Busy", "message": "a profile is being taken"}}
            there.send_result(ident, jsons.dumps(refused).encode("utf-8"), b"")
            return
        _running = Profile(there, ident, float(wanted["seconds"]), float(wanted["rate_hz"]))
    threading.Thread(target=_running.live, name="profile", daemon=True).start()


def cancel(ident: int) -> None:
    """Nobody waits for it any more."""
    running = _running
    if running is not None and running.ident == ident:
        running.is_wanted = False
        running.over.set()


def finish() -> None:
    """The worker is about to end: tells what there is."""
    running = _running
    if running is not None:
        running.over.set()
        running.told.wait(5)


class Profile:
    """One profile."""

    def __init__(self, there: runtime.Runtime, ident: int, seconds: float, rate_hz: float) -> None:
        self.ident = ident
        self.is_wanted = True
        self.over = threading.Event()
        self.told = threading.Event()
        self._there = there
        self._seconds = seconds
        self._period = 1 / rate_hz
        self._counts: dict[_Key, int] = {}
        self._codes: dict[int, CodeType] = {}
        self._samples = 0
        self._others = 0

    def live(self) -> None:
        """Looks until the time is over, then answers."""
        global _running
        began = time.monotonic()
        cost = time.thread_time()
        try:
            next_look = began
            while not self.over.wait(max(0.0, next_look - time.monotonic())):
                now = time.monotonic()
                if now - began >= self._seconds:
                    break
                before = time.thread_time()
                self._look()
                took = time.thread_time() - before
                # Looks that were missed are not made up for: a busy worker is not made busier.
                next_look = max(next_look + self._period, now + self._period / 2, now + took / _MOST_SHARE)
            if self.is_wanted:
                took = time.monotonic() - began
                self._there.send_result(
                    self.ident,
                    b'{"status":200,"content_type":"application/json","headers":{}}',
                    jsons.dumps(self._document(took, time.thread_time() - cost)).encode("utf-8"),
                )
        finally:
            with _lock:
                _running = None
            self.told.set()

    def _look(self) -> None:
        self._samples += 1
        seen = list(self._seen())
        clocks = [_had(native_id) for _, native_id, _ in seen]
        if all(clock is None for clock in clocks):
            for service, _, codes in seen:
                self._count(service, False, codes)
            return
        began = time.monotonic()
        time.sleep(_GLANCE_S)
        enough = _WORKING * (time.monotonic() - began)
        for (service, native_id, codes), before in zip(seen, clocks):
            after = _had(native_id) if before is not None else None
            is_working = before is not None and after is not None and after - before >= enough
            self._count(service, is_working, codes)

    def _seen(self) -> Iterator[tuple[str, int, _Stack]]:
        """What is done for each call now: its service, the thread's number (0: it waits and has none), the stack."""
        working = {member.ident: member for member in list(self._there.alive)}
        own = threading.get_ident()
        for ident, frame in sys._current_frames().items():
            member = working.get(ident)
            if member is not None:
                call = member.call
                if call is None:
                    continue
                yield call.plan.name, member.native_id, _stack(frame)
            elif ident == self._there.loop_ident:
                call = _current_coroutine(self._there)
                if call is not None:
                    yield call.plan.name, _native_id(ident), _stack(frame)
            elif ident != own:
                name = self._spawned_by(ident)
                if name is not None:
                    yield name, _native_id(ident), _stack(frame)
        if self._there.coroutines:
            from arint import aio

            for task, call in aio.suspended():
                yield call.plan.name, 0, _awaiting(task)

    def _spawned_by(self, ident: int) -> str | None:
        """The service for which this thread was started, or, for one of a service's own making, its name."""
        call = self._there.helping.get(ident)
        if call is not None:
            return str(call.plan.name)
        thread = threading._active.get(ident)  # type: ignore[attr-defined]
        if thread is None or thread is threading.main_thread():
            return None
        name = str(thread.name)
        for mark in ("spawned-", "invoke-"):
            if name.startswith(mark):
                return name[len(mark) :]
        return None if name.startswith(_OWN_THREADS) else f"thread {name}"

    def _count(self, service: str, is_working: bool, stack: _Stack) -> None:
        codes, line = stack
        key = (service, is_working, tuple(map(id, codes)), line)
        counts = self._counts
        if key in counts:
            counts[key] += 1
        elif len(counts) < _MOST_STACKS:
            # Kept, so that its `id` stays its own.
            self._codes.update(zip(key[2], codes))
            counts[key] = 1
        else:
            self._others += 1

    def _document(self, seconds: float, cost: float) -> dict[str, Any]:
        folder = str(self._there.hello.get("modules_dir") or "").rstrip("/") + "/"
        numbers: dict[int, int] = {}
        frames: list[dict[str, Any]] = []
        stacks = []
        for (service, is_working, codes, line), count in self._counts.items():
            numbered = []
            for ident in reversed(codes):
                number = numbers.get(ident)
                if number is None:
                    code = self._codes[ident]
                    number = numbers[ident] = len(frames)
                    file = _shortened(code.co_filename, folder)
                    frames.append({"name": code.co_qualname, "file": file, "line": code.co_firstlineno})
                numbered.append(number)
            stacks.append({"service": service, "working": is_working, "frames": numbered, "line": line, "count": count})
        return {
            "seconds": seconds,
            "samples": self._samples,
            "others": self._others,
            "cost_s": cost,
            "frames": frames,
            "stacks": stacks,
        }


_LIBRARY = os.path.dirname(os.path.abspath(threading.__file__)) + os.sep
# What runs services, threads and coroutines.
_AROUND = (
    _OWN,
    threading.__file__,
    os.path.join(_LIBRARY, "asyncio") + os.sep,
    os.path.join(_LIBRARY, "concurrent", "futures") + os.sep,
)


def _had(native_id: int) -> float | None:
    """The processor time that a thread has had."""
    if not native_id:
        return None
    try:
        # The clock of a thread by its number (clock_getcpuclockid(3)): one that has ended is an error, not a crash.
        return time.clock_gettime((~native_id << 3) | 6)
    except OSError:
        return None


def _stack(frame: FrameType | None) -> _Stack:
    """The functions around a frame, the innermost first, and its line."""
    line = frame.f_lineno if frame is not None else 0
    codes: list[CodeType] = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    return _of_service(codes), line


def _awaiting(task: Any) -> _Stack:
    """Where a suspended coroutine waits, the innermost first, and the line of that."""
    codes: list[CodeType] = []
    line = 0
    step = task.get_coro()
    while step is not None and len(codes) < 4 * _DEEPEST:
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None)
        if frame is None:
            break
        codes.append(frame.f_code)
        line = frame.f_lineno
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)
    codes.reverse()
    return _of_service(codes), line


def _of_service(codes: list[CodeType]) -> tuple[CodeType, ...]:
    # What runs the services is of no interest: outermost is the first that is not the SDK's.
    while len(codes) > 1 and codes[-1].co_filename.startswith(_AROUND):
        codes.pop()
    return tuple(codes[:_DEEPEST])


def _native_id(ident: int) -> int:
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    return int(getattr(thread, "native_id", None) or 0)


def _current_coroutine(there: runtime.Runtime) -> Any:
    """The call whose coroutine runs on the event loop just now, if one does."""
    aio = sys.modules.get("arint.aio")
    if aio is None or aio._loop is None:
        return None
    try:
        import asyncio

        task = asyncio.current_task(aio._loop)
    except (RuntimeError, AttributeError):
        # It has ended meanwhile.
        return None
    if task is None:
        return None
    # Python 3.12 has it, and knows it of a task that a coroutine began as well.
    context = getattr(task, "get_context", None)
    if context is not None:
        return context().get(runtime.current_call)
    mark, _, ident = task.get_name().partition(" ")
    return there.coroutines.get(int(ident)) if mark == aio.TASK else None


def _shortened(file: str, folder: str) -> str:
    """A file as people know it: without the folder of the deployment, of the SDK, of packages, of Python."""
    if file.startswith(folder):
        return file[len(folder) :]
    if file.startswith(_OWN):
        return "arint/" + file[len(_OWN) :]
    for mark in _MARKS:
        _, found, rest = file.rpartition(mark)
        if found:
            return rest
    library = os.path.dirname(os.__file__) + os.sep
    return file[len(library) :] if file.startswith(library) else file

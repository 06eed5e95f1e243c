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
from typing import Any

from arint import jsons, runtime

# Frames of one stack; deeper ones are cut at the outer end.
_DEEPEST = 100
# Different stacks that are told apart; what comes beyond is counted as one.
_MOST_STACKS = 20_000
# A thread that had the processor for this part of the time since the last look was working.
_WORKING = 0.2

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
# Threads of the SDK itself.
_OWN_THREADS = ("call-", "event-loop", "profile", "sql-")
_MARKS = ("/site-packages/", "/dist-packages/")

_lock = threading.Lock()
_running: Profile | None = None

_Key = tuple[str, bool, tuple[CodeType, ...], int]


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
        self._samples = 0
        self._others = 0
        # By thread: the processor time it had had at the last look, and when that was.
        self._clocks: dict[int, tuple[float, float]] = {}

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
                self._look(now)
                # Looks that were missed are not made up for: a busy worker is not made busier.
                next_look = max(next_look + self._period, now + self._period / 2)
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

    def _look(self, now: float) -> None:
        self._samples += 1
        working = {member.ident: member for member in list(self._there.alive)}
        own = threading.get_ident()
        for ident, frame in sys._current_frames().items():
            member = working.get(ident)
            if member is not None:
                call = member.call
                if call is None:
                    continue
                self._count(call.plan.name, self._is_working(member.native_id, now), frame)
            elif ident == self._there.loop_ident:
                call = _current_coroutine(self._there)
                if call is not None:
                    self._count(call.plan.name, True, frame)
            elif ident != own:
                name = self._spawned_by(ident)
                if name is not None:
                    self._count(name, self._is_working(_native_id(ident), now), frame)

    def _spawned_by(self, ident: int) -> str | None:
        """The service for which this thread was started, or, for one of a service's own making, its name."""
        thread = threading._active.get(ident)  # type: ignore[attr-defined]
        if thread is None or thread is threading.main_thread():
            return None
        name = str(thread.name)
        for mark in ("spawned-", "invoke-"):
            if name.startswith(mark):
                return name[len(mark) :]
        return None if name.startswith(_OWN_THREADS) else f"thread {name}"

    def _is_working(self, native_id: int, now: float) -> bool:
        """Whether a thread has used the processor since the last look.  The first look counts as work."""
        try:
            # The clock of a thread by its number (clock_getcpuclockid(3)): one that has ended is an error, not a crash.
            had = time.clock_gettime((~native_id << 3) | 6)
        except OSError:
            return False
        before = self._clocks.get(native_id)
        self._clocks[native_id] = (had, now)
        if before is None:
            return True
        return had - before[0] >= _WORKING * (now - before[1])

    def _count(self, service: str, is_working: bool, frame: FrameType | None) -> None:
        codes: list[CodeType] = []
        line = frame.f_lineno if frame is not None else 0
        while frame is not None:
            codes.append(frame.f_code)
            frame = frame.f_back
        # What runs the services is of no interest: outermost is the first that is not the SDK's.
        while len(codes) > 1 and codes[-1].co_filename.startswith((_OWN, _THREADING)):
            codes.pop()
        key = (service, is_working, tuple(codes[:_DEEPEST]), line)
        counts = self._counts
        if key in counts:
            counts[key] += 1
        elif len(counts) < _MOST_STACKS:
            counts[key] = 1
        else:
            self._others += 1

    def _document(self, seconds: float, cost: float) -> dict[str, Any]:
        folder = str(self._there.hello.get("modules_dir") or "").rstrip("/") + "/"
        numbers: dict[CodeType, int] = {}
        frames: list[dict[str, Any]] = []
        stacks = []
        for (service, is_working, codes, line), count in self._counts.items():
            numbered = []
            for code in reversed(codes):
                number = numbers.get(code)
                if number is None:
                    number = numbers[code] = len(frames)
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


_THREADING = threading.__file__


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

"""`python -m arint.worker`: the worker's end of the protocol.

Takes descriptor 0 for itself, reads HELLO, loads the services, answers READY or
FAILED, and from then on the main thread only watches the threads that work.
"""

from __future__ import annotations

import os
import sys
from typing import Any

PROTOCOL = 1

# The protocol's descriptor moves up here, out of the way of what services open.
_LOWEST_FD = 200


def main() -> None:
    """Runs until the core closes the connection or drains the worker."""
    import faulthandler
    import signal
    import socket

    from arint import frames, jsons, life, logs, runtime, userconfig

    fd = _take_descriptor()
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    sock.setblocking(True)
    there = runtime.Runtime(sock)
    runtime.install(there)

    frame = there.decoder.next()
    while frame is None:
        if there.decoder.fill(sock.recv_into) == 0:
            there.core_is_gone()
        frame = there.decoder.next()
    if frame[0] != frames.HELLO:
        raise frames.FrameError(f"the first frame is of kind {frame[0]} and not HELLO")
    hello = jsons.loads(str(frame[2], "utf-8"))
    if hello.get("protocol") != PROTOCOL:
        raise frames.FrameError(f"the core speaks protocol {hello.get('protocol')} and this worker {PROTOCOL}")
    there.hello = hello
    logs.install(there, bool(hello.get("debug")))
    life.set_return_tracebacks(bool(hello.get("return_tracebacks", True)))
    userconfig.replace(hello.get("user_config"))
    there.open_slots(hello.get("slots"))

    ready = _load(there, hello)

    from arint import guard

    guard.install()
    # The switch interval is how long a computing service may keep the leader from reading.
    sys.setswitchinterval(0.001)
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    there.send(ready)
    there.start()
    there.watch()


def _take_descriptor() -> int:
    import fcntl

    fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return fd


def _load(there: Any, hello: dict[str, Any]) -> bytes:
    """Loads the services; the READY frame, or the process ends with FAILED."""
    from arint import dispatch, frames, loader

    try:
        plans = loader.load(hello["modules_dir"], hello.get("modules") or [])
    except loader.LoadError as exc:
        there.send(frames.with_json(frames.FAILED, 0, exc.document()))
        _flush()
        os._exit(3)
    except Exception as exc:
        import traceback

        document = {
            "reason": f"{type(exc).__name__}: {exc}",
            "file": "",
            "line": 0,
            "traceback": traceback.format_exc(),
            "module": "",
        }
        there.send(frames.with_json(frames.FAILED, 0, document))
        _flush()
        os._exit(3)
    dispatch.install(there, plans, hello)
    return frames.with_json(
        frames.READY,
        0,
        {
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "services": [dispatch.described(plan) for plan in plans.values()],
        },
    )


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


if __name__ == "__main__":
    main()

"""Keeps a service that ends its process from ending everybody's.

Once installed, `os._exit`, `os.abort` and signals that the process sends to
itself raise `CallEnded` in the caller instead; `life` turns that, and
`SystemExit`, into an answer of 503 for that one request.  Children made by
`os.fork` end as they always did.

What this cannot catch are faults in native code.  Those take the worker with
them, and the core knows from the slots file whose they were.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from arint.errors import CallEnded


def install() -> None:
    """Replaces the ways to end this process."""
    worker_pid = os.getpid()
    really_exit = os._exit
    really_abort = os.abort
    really_kill = os.kill
    really_killpg = os.killpg
    really_raise = signal.raise_signal

    def guarded_exit(status: int) -> Any:
        if os.getpid() != worker_pid:
            really_exit(status)
        raise CallEnded(f"os._exit({status})")

    def guarded_abort() -> Any:
        if os.getpid() != worker_pid:
            really_abort()
        raise CallEnded("os.abort()")

    def guarded_kill(pid: int, sig: int) -> None:
        if sig != 0 and os.getpid() == worker_pid and pid in (worker_pid, 0, -1):
            raise CallEnded(f"os.kill({pid}, {_signal_name(sig)})")
        really_kill(pid, sig)

    def guarded_killpg(pgid: int, sig: int) -> None:
        if sig != 0 and os.getpid() == worker_pid and pgid in (0, os.getpgrp()):
            raise CallEnded(f"os.killpg({pgid}, {_signal_name(sig)})")
        really_killpg(pgid, sig)

    def guarded_raise(sig: int) -> None:
        if os.getpid() == worker_pid:
            raise CallEnded(f"signal.raise_signal({_signal_name(sig)})")
        really_raise(sig)

    os._exit = guarded_exit
    os.abort = guarded_abort
    os.kill = guarded_kill
    os.killpg = guarded_killpg
    signal.raise_signal = guarded_raise


def _signal_name(sig: int) -> str:
    try:
        return signal.Signals(sig).name
    except ValueError:
        return str(sig)

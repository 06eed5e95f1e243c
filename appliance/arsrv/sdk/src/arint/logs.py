"""Log records of services and of the modules they use, as LOG frames.

Everything that reaches the root logger goes to the core with the cid of the
request it belongs to.  Outside of a worker nothing is installed and logging
behaves as usual.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from arint import frames
from arint.runtime import Runtime, call_here

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"))


class FrameHandler(logging.Handler):
    """Sends each record to the core."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime

    def handle(self, record: logging.LogRecord) -> Any:
        # Without the handler's lock: the runtime's own keeps frames whole, and formatting needs none.
        kept = self.filter(record)
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return kept

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
        except Exception as exc:
            # Wrong %-arguments must not cost the request.
            message = f"{record.msg!s} (cannot format with {record.args!r}: {exc})"
        level = "debug"
        for number, name in _LEVELS:
            if record.levelno >= number:
                level = name
                break
        call = call_here()
        document: dict[str, Any] = {"level": level, "logger": record.name, "cid": None, "message": message}
        ident = 0
        if call is not None:
            document["cid"] = call.cid
            ident = call.ident
        self._runtime.send(frames.with_json(frames.LOG, ident, document))


def install(runtime: Runtime, debug: bool) -> None:
    """Makes the root logger send to the core."""
    # Looked up for each record and not sent.
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [FrameHandler(runtime)]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.captureWarnings(True)
    # At debug these describe our own work, byte by byte.
    for noisy in ("asyncio", "urllib3", "charset_normalizer"):
        logging.getLogger(noisy).setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)

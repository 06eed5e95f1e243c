"""Somebody at the reset button, for firmware that does not start.

QEMU's emulation sometimes loses the signal with which the firmware wakes the second processor after a reset of the
guest, on a busy host once in some hundred; OVMF then waits for that processor for 71 minutes (MpInitLib: "the
detection hangs forever, by design").  Nothing of ours runs at that moment, so it is no finding about the box.
"""

import threading
import time
from pathlib import Path

from harness.qmp import Qmp
from harness.waiting import patience

#: Firmware says its first words within five seconds on a quiet machine.
SECONDS = 60


class Starting(threading.Thread):
    """Watches one QEMU; after each reset something has to come on the serial console, else it is reset again."""

    def __init__(self, name: str, qmp: Path, serial_log: Path, said_before: int) -> None:
        super().__init__(name=f"starting {name}", daemon=True)
        self._box = name
        self._qmp = Qmp(qmp)
        self._log = serial_log
        #: Length of the log at the reset whose start is awaited; none where the start has been seen.
        self._before: int | None = said_before
        self._ended = threading.Event()
        #: How often it was reset.
        self.resets = 0

    def run(self) -> None:
        """Until QEMU ends."""
        limit = time.monotonic() + SECONDS * patience()
        while not self._ended.wait(1):
            try:
                self._qmp.call("query-status")
                events, self._qmp.events = self._qmp.events, []
                if any(event["event"] == "RESET" for event in events):
                    self._before = self._said()
                    limit = time.monotonic() + SECONDS * patience()
                elif self._before is not None and self._said() > self._before:
                    self._before = None
                elif self._before is not None and time.monotonic() > limit:
                    print(f"`{self._box}`: the firmware does not start; reset again", flush=True)
                    self.resets += 1
                    self._qmp.call("system_reset")
            except (OSError, EOFError, ValueError):
                return

    @property
    def started(self) -> bool:
        """Whether the firmware has spoken since the last reset."""
        return self._before is None

    def end(self) -> None:
        """Stops watching; returns when it has."""
        self._ended.set()
        self.join()
        self._qmp.close()

    def _said(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

"""QEMU's control socket: one JSON document a line."""

import json
import socket
from pathlib import Path


class QmpError(RuntimeError):
    """QEMU refused a command."""


class Qmp:
    """A connection; events that come in between are kept in `events`."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self.events: list[dict[str, object]] = []
        self._lines.readline()
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: object) -> object:
        """Runs one command and gives its answer."""
        document = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(document).encode() + b"\n")
        while True:
            line = self._lines.readline()
            if not line:
                raise EOFError(f"QEMU closed its control socket at `{command}`")
            answer = json.loads(line)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QmpError(f"QEMU refused `{command}`: {answer['error']['desc']}")
            else:
                return answer["return"]

    def close(self) -> None:
        """Ends the connection; QEMU goes on."""
        self._socket.close()

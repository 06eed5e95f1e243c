"""`self.commands`: programs of the box, run in the worker's own sandbox.

A program has exactly the rights of the service that runs it: it reads what
services may read, writes where they may write, and is ended with its worker.
"""

from __future__ import annotations

import datetime
import subprocess
import time
from typing import Any, Callable

from arint import runtime
from arint.errors import ZatoException

__all__ = ["CommandResult", "Commands"]

_LIMIT_S = 600.0


class CommandResult:
    """What became of a program."""

    def __init__(self, cid: str, command: Any, timeout: float, stdin: Any, encoding: str, replace_char: str) -> None:
        self.cid = cid
        self.command = command
        self.timeout = timeout
        self.stdin = stdin
        self.encoding = encoding
        self.replace_char = replace_char
        #: Whether it ended in time with exit code 0.
        self.is_ok = False
        self.is_async = False
        self.is_timeout = False
        self.timeout_msg = ""
        self.exit_code = -1
        self.stdout = ""
        self.stderr = ""
        self.start_time = ""
        self.start_time_iso = ""
        self.end_time = ""
        self.end_time_iso = ""
        self.total_time = ""
        self.total_time_sec = 0.0
        self.len_stdout_bytes = 0
        self.len_stderr_bytes = 0
        self.callback: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Everything that JSON can hold."""
        return {key: value for key, value in vars(self).items() if key != "callback"}


class Commands:
    """`self.commands`."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def invoke(
        self,
        command: Any,
        *,
        timeout: float = _LIMIT_S,
        cid: str | None = None,
        encoding: str = "utf8",
        stdin: Any = None,
        replace_char: str = "\ufffd",
        callback: Any = None,
        **_: Any,
    ) -> CommandResult:
        """Runs a command line by the shell (a list: without one) and waits for its end.

        A program that fails or takes too long is no exception: `is_ok`,
        `exit_code` and `is_timeout` tell.  `callback` is a function, a service's
        name or its class, and is given the result.
        """
        there = runtime.maybe()
        if there is not None:
            there.block()
        try:
            result = self._run(command, timeout, cid, encoding, stdin, replace_char)
        finally:
            if there is not None:
                there.unblock()
        self._tell(result, callback)
        return result

    def invoke_async(self, command: Any, *, callback: Any = None, cid: str | None = None, **kwargs: Any) -> str:
        """Runs a command and does not wait; returns the correlation id that `callback` will see."""
        import os

        from arint import spawning

        cid = cid or os.urandom(12).hex()

        def run() -> None:
            result = self._run_checked(command, cid, kwargs)
            result.is_async = True
            self._tell(result, callback)

        spawning.spawn(self._service, run)
        return cid

    def _run_checked(self, command: Any, cid: str, kwargs: dict[str, Any]) -> CommandResult:
        return self._run(
            command,
            kwargs.get("timeout", _LIMIT_S),
            cid,
            kwargs.get("encoding", "utf8"),
            kwargs.get("stdin"),
            kwargs.get("replace_char", "\ufffd"),
        )

    def _run(
        self, command: Any, timeout: float, cid: str | None, encoding: str, stdin: Any, replace_char: str
    ) -> CommandResult:
        result = CommandResult(cid or self._service.cid, command, timeout, stdin, encoding, replace_char)
        begun = time.monotonic()
        result.start_time = result.start_time_iso = _now()
        given = stdin.encode(encoding) if isinstance(stdin, str) else stdin
        try:
            done = subprocess.run(
                command,
                shell=isinstance(command, str),
                input=given if given is not None else b"",
                capture_output=True,
                timeout=float(timeout or _LIMIT_S),
                check=False,
            )
            stdout, stderr, result.exit_code = done.stdout, done.stderr, done.returncode
            result.is_ok = done.returncode == 0
        except subprocess.TimeoutExpired as exc:
            stdout, stderr = exc.stdout or b"", exc.stderr or b""
            result.is_timeout = True
            result.timeout_msg = f"the command did not end within {float(timeout):g} s"
        except (PermissionError, FileNotFoundError, BlockingIOError) as exc:
            raise ZatoException(
                result.cid,
                f"the command cannot be run: {exc}; a program has the rights of the worker that runs it, "
                "see commands in the page `not-supported` of the integrator's guide",
            ) from exc
        result.end_time = result.end_time_iso = _now()
        result.total_time_sec = time.monotonic() - begun
        result.total_time = f"{result.total_time_sec:.3f} s"
        result.len_stdout_bytes, result.len_stderr_bytes = len(stdout), len(stderr)
        result.stdout = _text(stdout, encoding, replace_char)
        result.stderr = _text(stderr, encoding, replace_char)
        return result

    def _tell(self, result: CommandResult, callback: Any) -> None:
        if callback is None:
            return
        result.callback = callback
        if _is_service(callback):
            self._service.invoke(callback, result.to_dict())
        else:
            callback(result)


def _is_service(callback: Callable[..., Any] | str | type) -> bool:
    return isinstance(callback, str) or hasattr(callback, "get_name")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None).isoformat()


def _text(data: bytes, encoding: str, replace_char: str) -> str:
    return data.decode(encoding, "replace").replace("\ufffd", replace_char)

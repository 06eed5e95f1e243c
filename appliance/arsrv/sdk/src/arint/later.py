"""`self.invoke_async` and `self.patterns`: services that are started and not waited for.

What is to be done is a document that the core takes and carries out; the worker
may end meanwhile.  In this release the core keeps it in memory.
"""

from __future__ import annotations

import os
from typing import Any, Callable

from arint import dispatch, invoke, jsons, runtime
from arint.errors import Inactive, ZatoException

__all__ = ["Patterns", "invoke_async"]


def _hand_over(service: Any, cid: str, what: dict[str, Any]) -> str:
    document = {"cid": cid, "source": service.name, "what": what}
    there = runtime.get()
    body = jsons.dumps(document).encode("utf-8", "surrogatepass")
    meta, _ = there.request({"op": "later", "cid": service.cid}, body)
    error = meta.get("error")
    if error is None:
        return cid
    kind, message = error.get("type"), error.get("message")
    if kind == "not-found":
        raise KeyError(message)
    if kind == "inactive":
        raise Inactive(str(message).partition("`")[2].partition("`")[0] or service.name, service.cid)
    raise ZatoException(service.cid, message)


def _new_cid() -> str:
    return os.urandom(12).hex()


def _names(given: Any) -> list[str]:
    if given is None or given == "":
        return []
    if isinstance(given, (list, tuple, set)):
        return [invoke.name_of(one) for one in given]
    return [invoke.name_of(given)]


def _plain(payload: Any) -> Any:
    """A payload as it goes to a service that is not loaded here."""
    if payload is None or payload == "":
        return None
    if isinstance(payload, (bytes, bytearray)):
        return bytes(payload).decode("utf-8")
    to_dict = getattr(payload, "to_dict", None)
    return to_dict() if to_dict is not None else payload


def invoke_async(
    service: Any, name: Any, payload: Any = "", *args: Any, callback: Any = None, cid: str | None = None, **kwargs: Any
) -> str:
    """What `Service.invoke_async` does."""
    payload, _ = invoke.split_options(payload, {**kwargs})
    name = invoke.name_of(name)
    if dispatch.enforce_invokes:
        invoke.check_invokes(service, name)
    target = {"service": name, "payload": _plain(payload)}
    return _hand_over(service, cid or _new_cid(), {"invoke": {"target": target, "callbacks": _names(callback)}})


class Patterns:
    """`self.patterns`."""

    def __init__(self, service: Any) -> None:
        self.fanout = FanOut(service)
        self.parallel = Parallel(service)
        self.invoke_retry = InvokeRetry(service)


def _targets(targets: Any) -> list[dict[str, Any]]:
    pairs = targets.items() if isinstance(targets, dict) else [(target, None) for target in targets]
    made = [{"service": invoke.name_of(target), "payload": _plain(payload)} for target, payload in pairs]
    if not made:
        raise ValueError("there is no target to be invoked")
    return made


class FanOut:
    """`self.patterns.fanout`."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def invoke(self, targets: Any, on_final: Any, on_target: Any = None, cid: str | None = None) -> str:
        """Invokes every target at once and does not wait; returns the correlation id.

        `targets` gives each service's payload.  The services of `on_target` are
        given each answer, those of `on_final` all of them together.
        """
        what = {"targets": _targets(targets), "on_target": _names(on_target), "on_final": _names(on_final)}
        return _hand_over(self._service, cid or _new_cid(), {"fan_out": what})


class Parallel:
    """`self.patterns.parallel`."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def invoke(self, targets: Any, on_target: Any = None, cid: str | None = None) -> str:
        """Invokes every target at once and does not wait; the services of `on_target` are given each answer."""
        what = {"targets": _targets(targets), "on_target": _names(on_target)}
        return _hand_over(self._service, cid or _new_cid(), {"parallel": what})


class InvokeRetry:
    """`self.patterns.invoke_retry`: a service that is invoked until it does not fail."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def invoke(
        self,
        name: Any,
        payload: Any = "",
        *,
        repeats: int = 5,
        seconds: float = 0,
        minutes: float = 0,
        async_fallback: bool = False,
        callback: Any = None,
        context: Any = None,
        cid: str | None = None,
        sleep: Callable[[float], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Invokes a service up to `repeats` times with a pause in between, and returns what it answered.

        Raises what the last try raised.  With `async_fallback` there is one try
        now; if it fails, the others are made in the background, and the
        correlation id that `callback` will see is returned.
        """
        pause = _pause(seconds, minutes)
        service = self._service
        tries = 1 if async_fallback else max(1, int(repeats))
        for left in range(tries - 1, -1, -1):
            try:
                return service.invoke(name, payload, **kwargs)
            except (KeyError, Inactive):
                # Trying again brings nothing.
                raise
            except Exception as exc:
                if async_fallback:
                    service.logger.warning("`%s` failed and is tried again in the background: %s", name, exc)
                    break
                if not left:
                    raise
                service.logger.warning("`%s` failed and is tried again %s times: %s", name, left, exc)
                (sleep or service.sleep)(pause)
        return self.invoke_async(
            name, payload, repeats=repeats, seconds=pause, callback=callback, context=context, cid=cid
        )

    def invoke_async(
        self,
        name: Any,
        payload: Any = "",
        *,
        repeats: int = 5,
        seconds: float = 0,
        minutes: float = 0,
        callback: Any = None,
        context: Any = None,
        cid: str | None = None,
        **kwargs: Any,
    ) -> str:
        """The same in the background; returns the correlation id that `callback` will see."""
        payload, _ = invoke.split_options(payload, {key: value for key, value in kwargs.items() if key != "async_fallback"})
        callbacks = _names(callback)
        what = {
            "target": {"service": invoke.name_of(name), "payload": _plain(payload)},
            "repeats": max(1, int(repeats)),
            "pause_ms": int(_pause(seconds, minutes) * 1000),
            "callback": callbacks[0] if callbacks else None,
            "context": context,
            "orig_cid": self._service.cid,
        }
        return _hand_over(self._service, cid or _new_cid(), {"retry": what})


def _pause(seconds: float, minutes: float) -> float:
    if seconds and minutes:
        raise ValueError("either `seconds` or `minutes` says how long to wait between tries, not both")
    return float(seconds or minutes * 60)

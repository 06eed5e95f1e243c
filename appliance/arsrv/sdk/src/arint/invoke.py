"""`self.invoke`: one service calls another.

A service that is loaded in this worker is called in place: no thread, no frame,
the payload is the very object.  Any other is asked for at the core.
"""

from __future__ import annotations

import builtins
import threading
import time
from typing import Any

from arint import dispatch, errors, frames, jsons, life, runtime
from arint.call import Call
from arint.errors import Inactive, TimeoutException, ZatoException
from bunch import bunchify

#: Most steps of one call that the core is told of.
STEPS = 200

_OPTIONS = (
    "channel",
    "data_format",
    "transport",
    "serialize",
    "as_bunch",
    "timeout",
    "raise_timeout",
    "cid",
    "skip_response_elem",
    "environ",
)


def name_of(target: Any) -> str:
    """A service's name, given its name, class or an instance."""
    if isinstance(target, str):
        return target
    get_name = getattr(target, "get_name", None)
    if get_name is not None:
        return str(get_name())
    raise TypeError(f"{target!r} is neither the name of a service nor its class")


def split_options(payload: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The payload and the options out of what `invoke` was given."""
    options = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
    if kwargs:
        if payload != "" and payload is not None:
            raise TypeError(f"`self.invoke` got a payload and also {', '.join(f'`{name}`' for name in kwargs)}")
        payload = kwargs
    return payload, options


def invoke(service: Any, target: Any, payload: Any = "", *args: Any, **kwargs: Any) -> Any:
    """What `Service.invoke` does."""
    for name, value in zip(("channel", "data_format", "transport", "serialize", "as_bunch"), args, strict=False):
        kwargs.setdefault(name, value)
    payload, options = split_options(payload, kwargs)
    name = name_of(target)
    check_target(service, name)
    timeout = float(options.get("timeout") or 0)
    plan = dispatch.plans.get(name)
    try:
        if plan is None:
            return ask_core(service, name, payload, options)
        if plan.is_async:
            return _from_loop(service, plan, payload, options, timeout)
        if timeout:
            return _with_timeout(service, plan, payload, options, timeout)
        return in_place(service, plan, payload, options)
    except TimeoutException:
        if options.get("raise_timeout", True):
            raise
        return None


def check_target(service: Any, name: str) -> None:
    """Raises when the service would invoke itself, or one that is switched off."""
    if name == service.name:
        raise ZatoException(service.cid, f"service `{name}` cannot invoke itself")
    if dispatch.enforce_invokes:
        check_invokes(service, name)
    if name in dispatch.inactive:
        raise Inactive(name, service.cid)


def check_invokes(service: Any, name: str) -> None:
    """Raises where a service declares `invokes` and the other is not among them."""
    plan = getattr(service, "_plan", None)
    if plan is not None and plan.invokes is not None and name not in plan.invokes:
        raise ZatoException(
            service.cid, f"service `{service.name}` must not invoke `{name}`: it is not among its `invokes`"
        )


def _local_call(service: Any, plan: Any, payload: Any, options: dict[str, Any]) -> Call:
    call = Call.local(
        getattr(service, "_call", None),
        plan,
        options.get("cid") or service.cid,
        options.get("channel") or "invoke",
        options.get("data_format") or "dict",
        payload,
    )
    call.environ = options.get("environ")
    return call


class Step:
    """Tells the core, once it has ended, of a service that was run without it: for `arctl trace`."""

    __slots__ = ("_there", "_call", "_at_us", "_began")

    def __init__(self, there: Any, call: Call) -> None:
        self._there = there
        self._call = call
        if there is not None:
            self._at_us = time.time_ns() // 1000
            self._began = time.perf_counter_ns()

    def end(self, failed: bool) -> None:
        there, call = self._there, self._call
        # Outside of a call nobody can ask for it.
        if there is None or not call.ident:
            return
        left = there.steps_left.get(call.ident, STEPS)
        if left <= 0:
            return
        there.steps_left[call.ident] = left - 1
        document = {
            "service": call.plan.name,
            "at_us": self._at_us,
            "took_us": (time.perf_counter_ns() - self._began) // 1000,
            "failed": failed,
        }
        there.send(frames.with_json(frames.STEP, call.ident, document))


def in_place(service: Any, plan: Any, payload: Any, options: dict[str, Any]) -> Any:
    """Runs the other service on this thread; its exceptions come out as they are."""
    there = runtime.maybe()
    if there is not None:
        there.refuse_on_loop()
    call = _local_call(service, plan, payload, options)
    step = Step(there, call)
    other = life.make_service(plan, call)
    try:
        life.perform(plan, other, call)
    except BaseException:
        step.end(True)
        raise
    step.end(False)
    return answer(plan, other, options)


async def in_loop(service: Any, plan: Any, payload: Any, options: dict[str, Any]) -> Any:
    """Runs another service with `async def handle` on this event loop."""
    call = _local_call(service, plan, payload, options)
    step = Step(runtime.maybe(), call)
    other = life.make_service(plan, call)
    try:
        await life.perform_async(plan, other, call)
    except BaseException:
        step.end(True)
        raise
    step.end(False)
    return answer(plan, other, options)


def answer(plan: Any, other: Any, options: dict[str, Any]) -> Any:
    """What a service that was run in place answered, in the form that was asked for."""
    response = other.__dict__.get("response")
    payload = response.__dict__.get("payload", "") if response is not None else ""
    if options.get("serialize"):
        return payload if isinstance(payload, (str, bytes)) else plan.output_text(payload)
    output = plan.output
    if not isinstance(payload, (str, bytes)) and (output is not None and output.is_sio):
        payload = plan.output_value(payload)
    elif isinstance(payload, dict) and not payload:
        payload = "" if type(payload) is not dict else payload
    return shaped(payload, options)


def shaped(payload: Any, options: dict[str, Any]) -> Any:
    """`skip_response_elem` and `as_bunch`."""
    if options.get("skip_response_elem") and isinstance(payload, dict) and len(payload) == 1:
        (payload,) = payload.values()
    if options.get("as_bunch"):
        to_dict = getattr(payload, "to_dict", None)
        if to_dict is not None:
            payload = to_dict()
        elif isinstance(payload, str) and payload[:1] in ("{", "["):
            payload = jsons.loads(payload)
        payload = bunchify(payload)
    return payload


def _with_timeout(service: Any, plan: Any, payload: Any, options: dict[str, Any], timeout: float) -> Any:
    """In place, but on a thread of its own, so that waiting for it can end."""
    import contextvars

    result: list[Any] = []
    context = contextvars.copy_context()
    context.run(runtime.current_call.set, runtime.call_here())

    def run() -> None:
        try:
            result.append((True, context.run(in_place, service, plan, payload, options)))
        except BaseException as exc:
            result.append((False, exc))

    thread = threading.Thread(target=run, name=f"invoke-{plan.name}", daemon=True)
    there = runtime.maybe()
    if there is not None:
        there.block()
    thread.start()
    thread.join(timeout)
    if there is not None:
        there.unblock()
    if not result:
        raise TimeoutException(service.cid, f"service `{plan.name}` did not answer within {timeout:g} s")
    is_done, value = result[0]
    if is_done:
        return value
    raise value


def _from_loop(service: Any, plan: Any, payload: Any, options: dict[str, Any], timeout: float) -> Any:
    """A coroutine's answer, for a caller that is none."""
    from arint import aio

    there = runtime.get()
    there.block()
    try:
        return aio.run_from_thread(in_loop(service, plan, payload, options), timeout, service.cid, plan.name)
    finally:
        there.unblock()


# By way of the core


def request_of(service: Any, name: str, payload: Any, options: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The REQUEST that invokes a service at the core."""
    timeout = float(options.get("timeout") or 0)
    meta = {
        "op": "invoke",
        "cid": options.get("cid") or service.cid,
        "service": name,
        "data_format": options.get("data_format") or "dict",
        "timeout_ms": int(timeout * 1000) or None,
        "channel": options.get("channel") or "invoke",
    }
    if options.get("environ"):
        meta["environ"] = options["environ"]
    if payload == "" or payload is None:
        body = b""
    elif isinstance(payload, bytes):
        body = payload
    else:
        body = jsons.dumps(payload).encode("utf-8", "surrogatepass")
    return meta, body


def ask_core(service: Any, name: str, payload: Any, options: dict[str, Any]) -> Any:
    """Invokes a service that is not loaded here."""
    meta, body = request_of(service, name, payload, options)
    return answer_of_core(service, name, options, *runtime.get().request(meta, body))


def answer_of_core(service: Any, name: str, options: dict[str, Any], meta: dict[str, Any], body: bytes) -> Any:
    """The core's REPLY to `invoke` as the value to return, or as an exception."""
    error = meta.get("error")
    if error is not None:
        raise remote_error(service.cid, name, meta, error)
    content_type = meta.get("content_type") or ""
    if content_type.startswith("application/octet-stream"):
        return body
    text = body.decode("utf-8")
    if options.get("serialize"):
        return text
    value = jsons.loads(text) if text and "json" in content_type else text
    return shaped(value, options)


def remote_error(cid: str, name: str, meta: dict[str, Any], error: dict[str, Any]) -> BaseException:
    """The exception for an error that the core, or the service through it, reported."""
    kind = error.get("type") or ""
    message = error.get("message") or ""
    details = error.get("details")
    if "status" not in meta:
        # The core itself refused.
        if kind == "not-found":
            return KeyError(name)
        if kind == "inactive":
            return Inactive(name, cid)
        if kind == "timeout":
            return TimeoutException(cid, message)
        return ZatoException(cid, message)
    if kind == "Inactive":
        return Inactive(name, cid)
    if kind == "ModelValidationError":
        return errors.ModelValidationError("", str(details if details is not None else message), cid)
    ours = getattr(errors, kind, None) if kind in errors.__all__ else None
    args = details if isinstance(details, list) else [details if details is not None else message]
    if isinstance(ours, type) and issubclass(ours, ZatoException):
        return ours(cid, args[0] if args else None)
    standard = getattr(builtins, kind, None)
    if isinstance(standard, type) and issubclass(standard, Exception):
        try:
            return standard(*args)
        except TypeError:
            return ZatoException(cid, message)
    return ZatoException(cid, message)


def new_instance(service: Any, target: Any) -> Any:
    """What `Service.new_instance` does."""
    name = name_of(target)
    plan = dispatch.plans[name]
    return life.make_service(plan, _local_call(service, plan, "", {"channel": "new-instance"}))

"""A request's way through a service: hooks in order, answer, errors.

`run_call` is what the worker's threads run for each CALL.  It never raises:
whatever a service does ends in a RESULT.  The order of hooks is that of the 3.2
dialect.  What a class does not override or declare is known beforehand (`plan`)
and takes no time here.
"""

from __future__ import annotations

import logging
from typing import Any

from arint import jsons
from arint.call import Call
from arint.errors import BadRequest, CallEnded, HTTPException, ModelValidationError, Unauthorized

_SCHEDULER_HOOKS = {"one_time": "one_time_job", "interval_based": "interval_based_job", "cron_style": "cron_style_job"}

_EMPTY_META = b'{"status":200,"content_type":null,"headers":{}}'
_metas: dict[tuple[int, str | None], bytes] = {(200, None): _EMPTY_META}

_new = object.__new__

# Whether callers are shown the arguments of exceptions; the core says so in HELLO.
_return_tracebacks = True


def set_return_tracebacks(value: bool) -> None:
    """Says whether callers see the arguments of unexpected exceptions."""
    global _return_tracebacks
    _return_tracebacks = value


def make_service(plan: Any, call: Call) -> Any:
    """A fresh instance of the service's class for one call."""
    service = plan.cls() if plan.has_init else _new(plan.cls)
    service._call = call
    service.cid = call.cid
    return service


def run_call(call: Call) -> tuple[bytes, Any]:
    """Runs a service that has a plain `handle`; gives a RESULT's meta and body, or the stream that sends it."""
    plan = call.plan
    service = None
    try:
        service = _new(plan.cls) if not plan.has_init else plan.cls()
        service._call = call
        service.cid = call.cid
        if plan.is_simple:
            if call.body:
                call.parse()
            plan.handle(service)
        else:
            perform(plan, service, call)
        response = service.__dict__.get("response")
        if response is None and call.channel != "soap":
            return _EMPTY_META, b""
        return encode(plan, call, response)
    except BaseException as exc:
        return failed(call, service, exc)


def perform(plan: Any, service: Any, call: Call) -> None:
    """The whole life cycle up to, not including, the answer's encoding."""
    if call.channel == "warm-up":
        plan.warm_up(service)
        return
    call.parse()
    if plan.input is not None:
        service.request.input = plan.input.read(service, call)
    if plan.accept is not None and not plan.accept(service):
        _refused(service)
        return
    if plan.schema is not None:
        plan.schema.check(call)
    job_hook = _SCHEDULER_HOOKS.get(service.job_type) if call.channel == "scheduler" else None
    if call.channel == "scheduler":
        _quietly(service.before_job)
        if job_hook:
            _quietly(getattr(service, f"before_{job_hook}"))
    if plan.before_handle is not None:
        _quietly(plan.before_handle, service)
    if plan.validate_input is not None:
        plan.validate_input(service)
    handle = plan.handle_for(call)
    if handle is None:
        service.response.status_code = 405
        service.response.payload = ""
    else:
        handle(service)
    if plan.validate_output is not None:
        plan.validate_output(service)
    if plan.after_handle is not None:
        _quietly(plan.after_handle, service)
    if call.channel == "scheduler":
        _quietly(service.after_job)
        if job_hook:
            _quietly(getattr(service, f"after_{job_hook}"))
    if plan.finalize_handle is not None:
        plan.finalize_handle(service)


async def perform_async(plan: Any, service: Any, call: Call) -> None:
    """The same as `perform`, for a class with `async def handle`; its hooks may be coroutines or not."""
    if call.channel == "warm-up":
        await _settle(plan.warm_up(service))
        return
    call.parse()
    if plan.input is not None:
        service.request.input = plan.input.read(service, call)
    if plan.accept is not None and not await _settle(plan.accept(service)):
        _refused(service)
        return
    if plan.schema is not None:
        plan.schema.check(call)
    if plan.before_handle is not None:
        await _quietly_async(plan.before_handle, service)
    if plan.validate_input is not None:
        await _settle(plan.validate_input(service))
    handle = plan.handle_for(call)
    if handle is None:
        service.response.status_code = 405
        service.response.payload = ""
    else:
        await _settle(handle(service))
    if plan.validate_output is not None:
        await _settle(plan.validate_output(service))
    if plan.after_handle is not None:
        await _quietly_async(plan.after_handle, service)
    if plan.finalize_handle is not None:
        await _settle(plan.finalize_handle(service))


async def run_call_async(call: Call) -> tuple[bytes, Any]:
    """The same as `run_call`, on the event loop."""
    plan = call.plan
    service = None
    try:
        service = make_service(plan, call)
        await perform_async(plan, service, call)
        response = service.__dict__.get("response")
        if call.channel == "soap":
            return encode(plan, call, response)
        if response is None:
            return _EMPTY_META, b""
        if _is_streamed(plan, response):
            from arint import stream

            return await stream.begin_async(call, response, response.payload)
        return encode(plan, call, response)
    except BaseException as exc:
        return failed(call, service, exc)


def _refused(service: Any) -> None:
    service.response.payload = ""
    service.response.status_code = 400


def _quietly(hook: Any, *args: Any) -> None:
    """Runs a hook whose exceptions are logged and go no further."""
    try:
        hook(*args)
    except Exception:
        owner = args[0] if args else hook.__self__
        owner.logger.exception("hook `%s` failed", hook.__name__)


async def _quietly_async(hook: Any, service: Any) -> None:
    try:
        await _settle(hook(service))
    except Exception:
        service.logger.exception("hook `%s` failed", hook.__name__)


async def _settle(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value


# The answer


def _is_streamed(plan: Any, response: Any) -> bool:
    kind = type(response.__dict__.get("payload"))
    return (hasattr(kind, "__next__") and plan.output is None) or hasattr(kind, "__anext__")


def _is_element(payload: Any) -> bool:
    """Whether a payload is an element of XML: of the SDK, the standard library, or lxml."""
    kind = type(payload)
    return hasattr(kind, "attrib") and hasattr(kind, "tag")


def encode(plan: Any, call: Call, response: Any) -> tuple[bytes, Any]:
    """A finished response as a RESULT's meta and body, or the stream that sends it."""
    if call.channel == "soap":
        from arint import soaps

        status, content_type, headers, body = soaps.encode(plan, call, response)
        return _meta_with_headers(status, content_type, headers, None), body
    parts = response.__dict__
    content_type = parts.get("content_type")
    payload = parts.get("payload", "")
    kind = type(payload)
    if kind is str:
        body = payload.encode("utf-8", "surrogatepass")
        if content_type is None and call.channel != "http-soap":
            content_type = "text/plain"
    elif kind is bytes:
        body = payload
        if content_type is None and call.channel != "http-soap":
            content_type = "application/octet-stream"
    else:
        if kind is not dict and _is_streamed(plan, response):
            from arint import stream

            return stream.begin(call, response, payload)
        if call.data_format == "csv" and call.channel == "http-soap":
            text = plan.output_csv(payload)
            content_type = content_type or "text/csv"
        elif kind is not dict and _is_element(payload):
            from arint import xmls

            text = xmls.text_of(payload)
            content_type = content_type or "application/xml"
        elif call.channel == "json-rpc":
            text = plan.output_bare(payload)
        else:
            text = plan.output_text(payload)
        body = text.encode("utf-8", "surrogatepass")
        if content_type is None and call.channel != "http-soap":
            content_type = "application/json" if text else "text/plain"
    status = parts.get("status_code", 200)
    if type(status) is not int:
        status = int(status)
    headers = parts.get("headers")
    encoding = parts.get("content_encoding")
    if headers or encoding:
        return _meta_with_headers(status, content_type, headers, encoding), body
    meta = _metas.get((status, content_type))
    if meta is None:
        meta = jsons.dumps({"status": status, "content_type": content_type, "headers": {}}).encode("utf-8")
        if len(_metas) < 256:
            _metas[(status, content_type)] = meta
    return meta, body


def _meta_with_headers(status: int, content_type: str | None, headers: Any, encoding: str | None) -> bytes:
    out = wire_headers(headers)
    if encoding:
        out.setdefault("Content-Encoding", encoding)
    for name in list(out):
        if name.lower() == "content-type":
            value = out.pop(name)
            if content_type is None:
                content_type = value
    document = {"status": status, "content_type": content_type, "headers": out}
    return jsons.dumps(document).encode("utf-8", "surrogatepass")


def wire_headers(headers: Any) -> dict[str, Any]:
    """Response headers as text, or as lists of text where one is to be sent several times."""
    out: dict[str, Any] = {}
    for name, value in (headers or {}).items():
        if isinstance(value, (list, tuple)):
            out[_text(name)] = [_text(item) for item in value]
        else:
            out[_text(name)] = _text(value)
    return out


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


# Errors


def failed(call: Call, service: Any, exc: BaseException) -> tuple[bytes, bytes]:
    """What a service raised, as a RESULT; and the traceback in the log."""
    plan = call.plan
    status, details, message = describe(plan.name, exc)
    headers: dict[str, Any] = {}
    if service is not None:
        response = service.__dict__.get("response")
        if response is not None:
            headers = wire_headers(response.__dict__.get("headers"))
    if isinstance(exc, Unauthorized) and exc.challenge:
        headers.setdefault("WWW-Authenticate", exc.challenge)
    try:
        log_failure(plan, status, message, exc)
    except Exception:
        # Reporting must not fail where the service already has.
        logging.getLogger("arint").error("cannot log the failure of service `%s`", plan.name)
    document = {
        "status": status,
        "headers": headers,
        "error": {"details": details, "type": type(exc).__name__, "message": message},
    }
    return jsons.dumps(document).encode("utf-8", "replace"), b""


def describe(name: str, exc: BaseException) -> tuple[int, Any, str]:
    """An exception as status, details for the caller, and message for the log."""
    if isinstance(exc, HTTPException):
        return exc.status, plain(exc.details), _message(exc)
    if isinstance(exc, ModelValidationError):
        return exc.status, plain(exc.msg), _message(exc)
    ended = how_it_ended(name, exc)
    if ended is not None:
        return 503, ended, ended
    if _return_tracebacks:
        return 500, [plain(arg) for arg in exc.args], _message(exc)
    return 500, "An error has occurred", _message(exc)


def how_it_ended(name: str, exc: BaseException) -> str | None:
    """One sentence for an exception that was to end the process; None for any other."""
    if isinstance(exc, CallEnded):
        return f"service '{name}' called {exc.args[0]}"
    if isinstance(exc, SystemExit):
        return f"service '{name}' called sys.exit({'' if exc.code is None else repr(exc.code)})"
    if isinstance(exc, MemoryError):
        return f"service '{name}' ran out of memory"
    if not isinstance(exc, Exception):
        return f"service '{name}' raised {type(exc).__name__}"
    return None


def _message(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:
        text = "its text cannot be made"
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def plain(value: Any) -> Any:
    """A value as JSON has it; what JSON has no form for as text."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    try:
        jsons.dumps(value)
    except (TypeError, ValueError, RecursionError):
        try:
            return str(value)
        except Exception:
            return f"a value of type {type(value).__name__}"
    return value


def log_failure(plan: Any, status: int, message: str, exc: BaseException) -> None:
    """Logs a failed request once: refusals in one line, faults with their traceback."""
    logger = plan.logger
    if isinstance(exc, (BadRequest, ModelValidationError)) or status < 500:
        logger.warning("refused with %s: %s", status, message)
        return
    traceback = exc.__traceback__
    # The first entry is this module's own call of the service.
    if traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    logger.error("failed with %s: %s", status, message, exc_info=(type(exc), exc, traceback))

"""What is known about a service's class before its first request.

Hooks that a class does not override are None here, declared input and output are
compiled, and a class that uses none of it is *simple*: its `handle` is called at
once.
"""

from __future__ import annotations

import logging
from typing import Any, Callable

from arint import jsons
from arint.response import OpenPayload, SIOPayload

HTTP_CHANNELS = ("http-soap", "invoke", "soap")

# As `inspect.CO_COROUTINE`.
_CO_COROUTINE = 0x80

_HOOKS = ("accept", "before_handle", "validate_input", "validate_output", "after_handle", "finalize_handle")


class Plan:
    """A service as the worker runs it."""

    __slots__ = (
        "cls",
        "name",
        "module",
        "line",
        "doc",
        "logger",
        "has_init",
        "is_async",
        "is_simple",
        "handle",
        "verbs",
        "input",
        "output",
        "schema",
        "invokes",
        "accept",
        "before_handle",
        "validate_input",
        "validate_output",
        "after_handle",
        "finalize_handle",
        "warm_up",
    )

    accept: Callable[[Any], Any] | None
    before_handle: Callable[[Any], Any] | None
    validate_input: Callable[[Any], Any] | None
    validate_output: Callable[[Any], Any] | None
    after_handle: Callable[[Any], Any] | None
    finalize_handle: Callable[[Any], Any] | None
    warm_up: Callable[[Any], Any] | None

    def __init__(self, cls: Any, name: str, module: str, line: int) -> None:
        from arint.service import Service
        from arint.sio import compile_declarations

        self.cls = cls
        self.name = name
        self.module = module
        self.line = line
        self.doc = clean_doc(cls.__dict__.get("__doc__") or "")
        self.logger = logging.getLogger(name)
        self.has_init = cls.__init__ is not Service.__init__ or cls.__new__ is not object.__new__
        self.handle = plain_handle(cls)
        self.verbs = verb_handles(cls)
        handles = [*self.verbs.values()] if self.handle is None else [self.handle, *self.verbs.values()]
        self.is_async = any(is_coroutine(handle) for handle in handles)
        self.input, self.output = compile_declarations(cls)
        self.schema = _schema_of(cls)
        self.invokes = _invokes_of(cls)
        overridden = False
        for hook in _HOOKS:
            function = getattr(cls, hook)
            if function is getattr(Service, hook):
                setattr(self, hook, None)
            else:
                setattr(self, hook, function)
                overridden = True
        job_hooks = any(
            getattr(cls, name) is not getattr(Service, name) for name in dir(Service) if name.endswith("_job")
        )
        self.warm_up = getattr(cls, "warm_up_worker", None)
        if self.warm_up is not None and is_coroutine(self.warm_up) and not self.is_async:
            raise TypeError("`warm_up_worker` is `async def` and `handle` is not; make both the same")
        self.is_simple = not (
            overridden
            or self.warm_up is not None
            or job_hooks
            or self.verbs
            or self.is_async
            or self.input is not None
            or self.schema is not None
            or self.handle is None
        )

    def handle_for(self, call: Any) -> Callable[[Any], Any] | None:
        """The method that runs this call; None where its HTTP method has none."""
        if self.verbs and call.channel in HTTP_CHANNELS:
            return self.verbs.get(call.method or "")
        return self.handle

    def output_value(self, payload: Any) -> Any:
        """A payload that is not text as what goes into JSON, by the declared output."""
        kind = type(payload)
        if kind is SIOPayload:
            return payload.getvalue(serialize=False)
        if kind is OpenPayload:
            return payload
        output = self.output
        if output is not None and payload is not None and not isinstance(payload, (str, bytes, int, float)):
            return output.write(payload)
        if isinstance(payload, (dict, list, tuple, str, int, float)) or payload is None:
            return payload
        to_dict = getattr(payload, "to_dict", None)
        if to_dict is not None:
            return to_dict()
        to_json = getattr(payload, "to_json", None)
        if to_json is not None:
            return jsons.loads(to_json())
        if hasattr(payload, "__dataclass_fields__"):
            return payload
        raise Exception(
            f"Cannot serialise value without SimpleIO output declaration: `{self.name}` set its payload to "
            f"an object of type `{kind.__module__}.{kind.__qualname__}`; declare its output, or make it a dict"
        )

    def unwrapped(self, payload: Any) -> Any:
        """A payload that is not text, by the declared output and without the wrapper that SimpleIO puts around it."""
        value = self.output_value(payload)
        wrapper = getattr(self.output, "wrapper", None)
        if wrapper is not None and isinstance(value, dict):
            value = value[wrapper]
        return value

    def output_csv(self, payload: Any) -> str:
        """A payload as the body of a CSV channel."""
        from arint import csvs

        if type(payload) is OpenPayload and not payload:
            return ""
        value = self.unwrapped(payload)
        return "" if value is None else csvs.text_of(value)

    def output_bare(self, payload: Any) -> str:
        """A payload as the result of a JSON-RPC call, which has no wrapper of SimpleIO."""
        if type(payload) is OpenPayload and not payload:
            return ""
        return jsons.dumps(self.unwrapped(payload))

    def output_text(self, payload: Any) -> str:
        """A payload that is neither `str` nor `bytes` as the body's text; empty values have none."""
        kind = type(payload)
        if kind is dict and self.output is None:
            return jsons.dumps(payload)
        if isinstance(payload, str):
            return str(payload)
        if isinstance(payload, (bytes, bytearray, memoryview)):
            return bytes(payload).decode("utf-8")
        if kind is OpenPayload and not payload:
            return ""
        value = self.output_value(payload)
        if isinstance(value, str):
            return value
        if not value and not isinstance(value, dict):
            return ""
        return jsons.dumps(value)


def _schema_of(cls: Any) -> Any:
    declared = getattr(cls, "schema", None)
    if not declared:
        return None
    from arint.schemas import Schema

    return Schema(declared)


def _invokes_of(cls: Any) -> frozenset[str] | None:
    declared = getattr(cls, "invokes", None)
    if declared is None:
        return None
    from arint.invoke import name_of

    return frozenset(name_of(one) for one in (declared if isinstance(declared, (list, tuple, set)) else [declared]))


def plain_handle(cls: Any) -> Callable[[Any], Any] | None:
    """The class's own `handle`, or `handler`, or None."""
    from arint.service import Service

    handle = getattr(cls, "handle", None)
    if handle is not None and handle is not Service.handle:
        return handle  # type: ignore[no-any-return]
    handler = getattr(cls, "handler", None)
    return handler if callable(handler) else None


def verb_handles(cls: Any) -> dict[str, Callable[[Any], Any]]:
    """The `handle_<VERB>` methods by verb."""
    return {
        name[7:]: getattr(cls, name)
        for name in dir(cls)
        if name.startswith("handle_") and name[7:].isupper() and callable(getattr(cls, name))
    }


def is_coroutine(function: Any) -> bool:
    """Whether a method is `async def`."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    return bool(code and code.co_flags & _CO_COROUTINE)


def clean_doc(doc: str) -> str:
    """A docstring without its indentation.  (`inspect` would take milliseconds to import.)"""
    first, *rest = doc.expandtabs().split("\n")
    indents = [len(line) - len(line.lstrip()) for line in rest if line.strip()]
    indent = min(indents, default=0)
    return "\n".join([first.strip(), *(line[indent:].rstrip() for line in rest)]).strip()

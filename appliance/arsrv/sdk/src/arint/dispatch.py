"""Joins the threads (`runtime`) with the services (`plan`, `life`)."""

from __future__ import annotations

import sys
from typing import Any

from arint import call as calls
from arint import jsons, life, userconfig
from arint.plan import Plan
from arint.runtime import Runtime, get

#: The services of this worker, by name.
plans: dict[str, Plan] = {}
#: Names of services that are switched off.
inactive: frozenset[str] = frozenset()
#: Whether a service with `invokes` may invoke those services only.
enforce_invokes = False


def install(there: Runtime, loaded: dict[str, Plan], hello: dict[str, Any]) -> None:
    """Sets the worker up to run these services."""
    plans.clear()
    plans.update(loaded)
    _set_inactive(hello)
    global enforce_invokes
    enforce_invokes = bool(hello.get("enforce_service_invokes"))

    def make_call(ident: int, payload: bytes | memoryview) -> calls.Call | None:
        call, meta = calls.from_frame(plans, ident, payload)
        if meta.get("channel") == "profile":
            from arint import frames, profile

            profile.start(there, ident, bytes(frames.split_call(payload)[2] or b""))
            return None
        if call is None:
            name = meta["service"]
            document = {
                "status": 404,
                "headers": {},
                "error": {"details": None, "type": "KeyError", "message": f"no service `{name}` in this worker"},
            }
            there.send_result(ident, jsons.dumps(document).encode("utf-8"), b"")
        elif call.channel == "soap-schema":
            there.send_result(ident, *_described_in_soap(call))
            return None
        return call

    there.make_call = make_call
    there.run_call = life.run_call
    there.take_config = _take_config
    there.start_coroutine = _start_coroutine
    if any(plan.is_async for plan in loaded.values()):
        from arint import aio

        aio.start(there)


def _described_in_soap(call: calls.Call) -> tuple[bytes, bytes]:
    """The messages of a service as XML Schema: what the core asks for where a client wants a WSDL."""
    from arint import soaps

    try:
        wanted = jsons.loads(str(call.body or b"", "utf-8"))
        schema = soaps.describe(call.plan, wanted["operation"], wanted["namespace"]).encode("utf-8")
    except Exception as exc:
        return life.failed(call, None, exc)
    return b'{"status":200,"content_type":"text/xml","headers":{}}', schema


def _start_coroutine(call: calls.Call) -> None:
    from arint import aio

    aio.run(call)


def _set_inactive(document: dict[str, Any]) -> None:
    global inactive
    inactive = frozenset(document.get("inactive") or ())


def _take_config(document: dict[str, Any]) -> None:
    """Takes a CONFIG: each key that it has replaces what was, the others stay."""
    if "inactive" in document:
        _set_inactive(document)
    if "user_config" in document:
        userconfig.replace(document["user_config"])
    if "kvdb" in document:
        there = get()
        if there.hello.get("kvdb") != document["kvdb"]:
            there.hello["kvdb"] = document["kvdb"]
            modules = sys.modules
            if "arint.kvdb" in modules:
                modules["arint.kvdb"].forget()


def described(plan: Plan) -> dict[str, Any]:
    """A service as READY tells the core."""
    return {
        "name": plan.name,
        "module": plan.module,
        "class": plan.cls.__name__,
        "line": plan.line,
        "summary": plan.doc.partition("\n")[0],
        "doc": plan.doc,
        "is_async": plan.is_async,
        "warms_up": plan.warm_up is not None,
        "verbs": sorted(plan.verbs),
        "input": plan.input.schema() if plan.input is not None else None,
        "output": plan.output.schema() if plan.output is not None else None,
    }

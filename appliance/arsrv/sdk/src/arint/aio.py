"""The event loop for `async def handle`, and `self.aio`.

One loop runs in one thread of its own and serves all coroutines of the worker.
What would block it has a counterpart here to await.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any, Callable, Coroutine

from arint import dispatch, invoke, life, rest, runtime
from arint.errors import TimeoutException

#: What the task of a call is called, before the call's id.
TASK = "call"

_loop: asyncio.AbstractEventLoop | None = None
_tasks: set[asyncio.Task[Any]] = set()


def start(there: runtime.Runtime) -> None:
    """Starts the loop's thread; does nothing when it runs already."""
    global _loop
    if _loop is not None:
        return
    loop = asyncio.new_event_loop()
    is_running = threading.Event()

    def live() -> None:
        there.loop_ident = threading.get_ident()
        asyncio.set_event_loop(loop)
        loop.call_soon(is_running.set)
        loop.run_forever()

    threading.Thread(target=live, name="event-loop", daemon=True).start()
    is_running.wait()
    _loop = loop


def loop() -> asyncio.AbstractEventLoop:
    """The worker's event loop."""
    if _loop is None:
        start(runtime.get())
    assert _loop is not None
    return _loop


def run(call: Any) -> None:
    """Begins a call's coroutine.  Called by the leader, from its thread."""
    loop().call_soon_threadsafe(_begin, call)


def _begin(call: Any) -> None:
    context = contextvars.copy_context()
    context.run(runtime.current_call.set, call)
    task = loop().create_task(_live(call), context=context, name=f"{TASK} {call.ident}")
    # The loop itself holds tasks only weakly.
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def suspended() -> list[tuple[asyncio.Task[Any], Any]]:
    """The coroutines of calls that wait for something, with their calls; may be asked from any thread."""
    if _loop is None:
        return []
    running = asyncio.current_task(_loop)
    calls = runtime.get().coroutines
    found = []
    for task in list(_tasks):
        mark, _, ident = task.get_name().partition(" ")
        call = calls.get(int(ident)) if mark == TASK and ident.isdigit() else None
        if call is not None and task is not running and not task.done():
            found.append((task, call))
    return found


async def _live(call: Any) -> None:
    there = runtime.get()
    meta, body = await life.run_call_async(call)
    if isinstance(body, bytes):
        there.end_coroutine(call, meta, body)
    else:
        await body.run_async(there, meta)
        there.end_coroutine(call, None, b"")


def run_from_thread(coroutine: Coroutine[Any, Any, Any], timeout: float, cid: str, name: str) -> Any:
    """Runs a coroutine on the loop and waits for it on another thread; raises TimeoutException."""
    context = contextvars.copy_context()
    context.run(runtime.current_call.set, runtime.call_here())
    done = threading.Event()
    result: list[Any] = []

    async def live() -> None:
        try:
            result.append((True, await asyncio.wait_for(coroutine, timeout or None)))
        except TimeoutError:
            result.append((False, TimeoutException(cid, f"service `{name}` did not answer within {timeout:g} s")))
        except BaseException as exc:
            result.append((False, exc))
        finally:
            done.set()

    def begin() -> None:
        task = loop().create_task(live(), context=context)
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    loop().call_soon_threadsafe(begin)
    done.wait()
    is_done, value = result[0]
    if is_done:
        return value
    raise value


async def ask(meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Sends a REQUEST to the core and awaits its reply."""
    here = asyncio.get_running_loop()
    future: asyncio.Future[tuple[dict[str, Any], bytes]] = here.create_future()

    def arrived(reply: tuple[dict[str, Any], bytes]) -> None:
        if not future.done():
            future.set_result(reply)

    def tell(reply_meta: dict[str, Any], reply_body: bytes) -> None:
        here.call_soon_threadsafe(arrived, (reply_meta, reply_body))

    there = runtime.get()
    there.ask(meta, body, tell)
    reply = await future
    call = runtime.current_call.get()
    if call is not None and there.slots is not None:
        there.slots[0] = call.ident
    return reply


class Aio:
    """`self.aio`: to be awaited in `async def handle`."""

    def __init__(self, service: Any) -> None:
        self._service = service

    async def invoke(self, name: Any, payload: Any = "", **kwargs: Any) -> Any:
        """The same as `self.invoke`, without blocking the loop."""
        payload, options = invoke.split_options(payload, kwargs)
        name = invoke.name_of(name)
        service = self._service
        invoke.check_target(service, name)
        timeout = float(options.get("timeout") or 0)
        try:
            plan = dispatch.plans.get(name)
            if plan is None:
                reply = await ask(*invoke.request_of(service, name, payload, options))
                return invoke.answer_of_core(service, name, options, *reply)
            if plan.is_async:
                step: Any = invoke.in_loop(service, plan, payload, options)
            else:
                step = self.run(invoke.in_place, service, plan, payload, options)
            try:
                return await asyncio.wait_for(step, timeout) if timeout else await step
            except TimeoutError:
                raise TimeoutException(
                    service.cid, f"service `{name}` did not answer within {timeout:g} s"
                ) from None
        except TimeoutException:
            if options.get("raise_timeout", True):
                raise
            return None

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Runs a blocking function on a thread and awaits its result."""
        context = contextvars.copy_context()
        there = runtime.maybe()
        call = runtime.current_call.get()

        def work() -> Any:
            if there is None or call is None:
                return context.run(function, *args, **kwargs)
            ident = threading.get_ident()
            there.helping[ident] = call
            try:
                return context.run(function, *args, **kwargs)
            finally:
                del there.helping[ident]

        return await asyncio.get_running_loop().run_in_executor(None, work)

    async def sleep(self, seconds: float) -> None:
        """Waits; other coroutines go on meanwhile."""
        await asyncio.sleep(seconds)

    @property
    def rest(self) -> AioFacade:
        """`await self.aio.rest['X'].get(...)`: the verbs of `self.rest`."""
        return AioFacade(self._service.cid)


class AioFacade:
    """`self.aio.rest`."""

    def __init__(self, cid: str) -> None:
        self._cid = cid

    def __getitem__(self, name: str) -> AioConnection:
        return AioConnection(self._cid, rest.resolved_name(name))


class AioConnection:
    """One outgoing REST connection, to be awaited; an unknown name raises KeyError on first use."""

    def __init__(self, cid: str, name: str) -> None:
        self._cid = cid
        self.name = name

    async def http_request(
        self,
        method: str,
        data: Any = "",
        params: Any = None,
        *,
        headers: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """See `RESTConnection.http_request`."""
        about = rest._cached_info(self.name)
        if about is None:
            meta, _ = await ask({"op": "rest_info", "conn": self.name, "cid": self._cid}, b"")
            about = rest._keep_info(self._cid, self.name, meta)
        meta, body = rest.prepared(self._cid, self.name, about, method, data, params, headers, timeout)
        return rest.response_of(self._cid, self.name, about, method, *await ask(meta, body))

    async def get(self, params: Any = None, **kwargs: Any) -> Any:
        """GET."""
        return await self.http_request("GET", "", params, **kwargs)

    async def delete(self, data: Any = "", params: Any = None, **kwargs: Any) -> Any:
        """DELETE."""
        return await self.http_request("DELETE", data, params, **kwargs)

    async def options(self, data: Any = "", params: Any = None, **kwargs: Any) -> Any:
        """OPTIONS."""
        return await self.http_request("OPTIONS", data, params, **kwargs)

    async def post(self, data: Any = "", params: Any = None, **kwargs: Any) -> Any:
        """POST."""
        return await self.http_request("POST", data, params, **kwargs)

    async def put(self, data: Any = "", params: Any = None, **kwargs: Any) -> Any:
        """PUT."""
        return await self.http_request("PUT", data, params, **kwargs)

    async def patch(self, data: Any = "", params: Any = None, **kwargs: Any) -> Any:
        """PATCH."""
        return await self.http_request("PATCH", data, params, **kwargs)

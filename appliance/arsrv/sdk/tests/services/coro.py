# -*- coding: utf-8 -*-

# stdlib
import asyncio
import logging
import time

# Zato
from zato.server.service import Service

_event = None


class Hello(Service):
    input = 'name'
    output = 'greeting'

    async def before_handle(self):
        await asyncio.sleep(0)
        self.environ['before'] = 'hook ran'

    async def handle(self):
        await asyncio.sleep(0)
        logging.getLogger('a.library').warning('in a coroutine')
        self.response.payload = {'greeting': 'hello ' + self.request.input.name + ', ' + self.environ['before']}


class Sync(Service):
    def handle(self):
        self.response.payload = {'sync': self.request.payload}


class CallsAll(Service):
    async def handle(self):
        out = {}
        out['hello'] = await self.aio.invoke('coro.hello', {'name': 'Ann'})
        out['sync'] = await self.aio.invoke('coro.sync', {'a': 1})
        out['remote'] = await self.aio.invoke('elsewhere.service', {'b': 2})
        response = await self.aio.rest['CRM'].get({'customer_id': 1})
        out['rest'] = [response.status_code, response.data]
        out['run'] = await self.aio.run(self._blocking, 'x')
        try:
            self.invoke('coro.sync')
        except NotImplementedError as e:
            out['blocking'] = str(e)
        self.response.payload = out

    def _blocking(self, value):
        self.sleep(0.001)
        return value + self.invoke('coro.sync', 'y')['sync']


class CallsAsync(Service):
    def handle(self):
        self.response.payload = self.invoke('coro.hello', {'name': 'Bob'})


class WaitForOther(Service):
    async def handle(self):
        global _event
        _event = asyncio.Event()
        await _event.wait()
        self.response.payload = 'was woken'


class WakeOther(Service):
    async def handle(self):
        while _event is None:
            await asyncio.sleep(0)
        _event.set()


class Fails(Service):
    async def handle(self):
        self.response.headers['X-Was-Here'] = 'yes'
        raise ValueError('in a coroutine')


class Exits(Service):
    async def handle(self):
        raise SystemExit(5)


class TimesOut(Service):
    async def handle(self):
        from zato.common.exception import TimeoutException
        try:
            await self.aio.invoke('coro.sleeper', timeout=0.02)
        except TimeoutException as e:
            self.response.payload = str(e)


class Sleeper(Service):
    async def handle(self):
        await self.aio.sleep(30)

"""`async def handle`: thousands may wait at a time, and calls are made side by side."""

import asyncio

from zato.server.service import Service


class Both(Service):
    """Asks two systems at the same time."""

    name = 'examples.both'

    async def handle(self):
        one, other = await asyncio.gather(self.aio.rest['one'].get(), self.aio.rest['other'].get())
        self.response.payload = {'one': one.data['n'], 'other': other.data['n']}

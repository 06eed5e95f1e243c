"""Services whose answers are streamed."""

import os
import time

from zato.server.service import Service

closed = []


class Events(Service):
    name = 'streams.events'

    def handle(self):
        self.response.payload = self.events()

    def events(self):
        for number in range(3):
            yield {'number': number}


class Endless(Service):
    name = 'streams.endless'

    def handle(self):
        self.response.payload = self.ticks()

    def ticks(self):
        try:
            while True:
                yield {'pid': os.getpid()}
                time.sleep(0.02)
        finally:
            self.kvdb.conn.set('streams.closed', self.cid)


class WhichClosed(Service):
    name = 'streams.which-closed'

    def handle(self):
        self.response.payload = self.kvdb.conn.get('streams.closed') or 'none'


class Large(Service):
    name = 'streams.large'

    def handle(self):
        piece = b'0123456789abcdef' * 4096
        self.response.content_type = 'application/x-large'
        self.response.payload = (piece for _ in range(int(self.request.input.get('pieces', 1600))))


class Slow(Service):
    name = 'streams.slow'

    def handle(self):
        self.response.payload = self.parts()

    def parts(self):
        yield 'begun'
        time.sleep(1.5)
        yield 'ended'

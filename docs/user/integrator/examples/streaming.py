"""Answers piece by piece: a generator as payload."""

from arint.stream import Event

from zato.server.service import Service


class Ticks(Service):
    """Sends server-sent events."""

    name = 'examples.ticks'

    def handle(self):
        self.response.payload = (Event({'n': number}, event='tick') for number in range(3))


class Export(Service):
    """Sends rows of any number as lines of JSON."""

    name = 'examples.export'

    def handle(self):
        self.response.content_type = 'application/x-ndjson'
        self.response.payload = ({'row': number} for number in range(10_000))

import decimal
import uuid
from datetime import date
from xml.etree import ElementTree

from bunch import Bunch
from zato.server.service import Service


class Payload(Service):
    name = 'resp.payload'

    def handle(self):
        kind = self.request.http.params.kind
        self.response.payload = {
            'text': 'text', 'bytes': b'bytes', 'dict': {'a': 1}, 'list': [1, 2], 'tuple': (1, 2), 'bunch': Bunch(a=Bunch(b=1)),
            'none': None, 'empty-list': [], 'number': 5, 'object': WithDict(), 'json': WithJson(),
            'plain-types': {'date': date(2024, 2, 3), 'decimal': decimal.Decimal('1.10'), 'uuid': uuid.UUID(int=1)},
            'xml': ElementTree.fromstring('<a><b>1</b></a>'), 'unknown': Unknown(), 'unicode': 'zażółć',
        }[kind]


class WithDict:
    def to_dict(self):
        return {'by': 'to_dict'}


class WithJson:
    def to_json(self):
        return '{"by": "to_json"}'


class Unknown:
    pass


class Vivid(Service):
    name = 'resp.vivid'

    def handle(self):
        self.response.payload.a.b = 1
        self.response.payload.c = [2]


class Nothing(Service):
    name = 'resp.nothing'

    def handle(self):
        return 'ignored'


class Status(Service):
    name = 'resp.status'

    def handle(self):
        self.response.status_code = 202
        self.response.headers['X-One'] = 1
        self.response.headers['Location'] = '/elsewhere'
        self.response.content_type = 'text/csv'
        self.response.payload = 'a,b'


class Encoded(Service):
    name = 'resp.encoded'

    def handle(self):
        self.response.content_encoding = 'identity'
        self.response.payload = 'x'


class NoBody(Service):
    name = 'resp.no-body'

    def handle(self):
        self.response.status_code = 204


class Events(Service):
    name = 'resp.events'

    def handle(self):
        self.response.payload = ({'n': n} for n in range(2))


class Lines(Service):
    name = 'resp.lines'

    def handle(self):
        self.response.content_type = 'application/x-ndjson'
        self.response.payload = iter([{'n': 1}, {'n': 2}])


class AsyncEvents(Service):
    name = 'resp.async-events'

    async def handle(self):
        self.response.payload = self.events()

    async def events(self):
        for n in range(2):
            await self.aio.sleep(0.001)
            yield {'n': n}

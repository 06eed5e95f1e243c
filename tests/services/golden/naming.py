from zato.common.exception import BadRequest, Forbidden
from zato.server.service import Model, Service, dataclass


class Add(Service):
    """Adds two numbers."""

    name = 'math.add'

    class SimpleIO:
        input_required = 'a', 'b'
        output_required = 'sum'

    def handle(self):
        self.response.payload.sum = int(self.request.input.a) + int(self.request.input.b)


@dataclass(init=False)
class Order(Model):
    sku: str
    count: int


class Take(Service):
    name = 'math.take'
    input = Order

    def handle(self):
        self.response.payload = {'taken': self.request.input.count}


class Seen(Service):
    name = 'math.seen'

    def handle(self):
        self.response.payload = {
            'payload': self.request.payload,
            'channel': [self.channel.name, self.channel.type, self.channel.security.username],
            'params': self.request.http.params,
            'query': self.request.http.GET,
            'method': self.request.http.method,
        }


class Plain(Service):
    name = 'math.plain'

    def handle(self):
        self.response.payload = 'say "hi"'


class Raises(Service):
    name = 'math.raises'

    def handle(self):
        what = self.request.payload['what']
        if what == 'bad':
            raise BadRequest(self.cid, 'no such order', needs_msg=True)
        if what == 'forbidden':
            raise Forbidden(self.cid, 'not yours')
        raise ValueError('first', 2)


class Verbs(Service):
    name = 'math.verbs'

    def handle_GET(self):
        self.response.payload = 'got'


class Hidden(Service):
    name = 'secret.hidden'

    def handle(self):
        self.response.payload = 'never'


class Limited(Service):
    name = 'math.limited'

    def handle(self):
        self.response.payload = 'in'


class Off(Service):
    name = 'math.off'

    def handle(self):
        self.response.payload = 'off'

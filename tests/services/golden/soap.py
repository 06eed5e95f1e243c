from zato.common.exception import BadRequest, Forbidden
from zato.common.typing_ import list_, optional
from zato.server.service import Int, List, Model, Service, dataclass


class Hello(Service):
    """Greets by declared input and output."""

    name = 'soap.hello'

    class SimpleIO:
        input_required = 'name'
        input_optional = Int('times'), List('tags')
        output_required = 'text'
        output_optional = Int('times'), List('tags')

    def handle(self):
        given = self.request.input
        self.response.payload = {'text': 'hello ' + given.name, 'times': given.times or 0, 'tags': given.tags or []}


class Raw(Service):
    """Sees the tree."""

    name = 'soap.raw'

    def handle(self):
        root = self.request.payload
        self.response.payload = {
            'tag': root.tag,
            'first': str(root.customer.name),
            'items': [item.get('sku') for item in root.item],
            'total': root.total * 2,
            'channel': [self.channel.type, self.channel.data_format, self.request.http.method],
            'whole': 'Envelope' in self.request.raw_request,
            'nothing': None,
            'odd key!': '<&>',
        }


class Xml(Service):
    name = 'soap.xml'

    def handle(self):
        what = str(self.request.payload)
        if what == 'element':
            self.response.payload = self.request.payload
        elif what == 'text':
            self.response.payload = '<?xml version="1.0"?>\n<a xmlns="urn:a"><b>1</b></a>'
        elif what == 'several':
            self.response.payload = '<a/><b/>'
        elif what == 'broken':
            self.response.payload = '<a><b></a>'
        elif what == 'plain':
            self.response.payload = 'a < b'
        elif what == 'envelope':
            self.response.payload = '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><own/></e:Body></e:Envelope>'
        elif what == 'status':
            self.response.status_code = 202
            self.response.headers['X-Own'] = 'set'


class Raises(Service):
    name = 'soap.raises'

    def handle(self):
        what = str(self.request.payload)
        if what == 'bad':
            raise BadRequest(self.cid, 'no such order', needs_msg=True)
        if what == 'forbidden':
            raise Forbidden(self.cid, 'not yours')
        raise ValueError('first', {'second': 2})


@dataclass(init=False)
class Line(Model):
    sku: str
    count: int


@dataclass(init=False)
class Order(Model):
    id: str
    lines: list_[Line]
    note: optional[str] = None


class Place(Service):
    """Takes a Model."""

    name = 'soap.place-order'
    input = Order
    output = Order

    def handle(self):
        order = self.request.input
        order.lines[0].count += 1
        self.response.payload = order


class Who(Service):
    name = 'soap.who'

    def handle(self):
        self.response.payload = {'username': self.channel.security.username, 'type': self.channel.security.type}


class Verb(Service):
    name = 'soap.verb'

    def handle_POST(self):
        self.response.payload = {'posted': True}

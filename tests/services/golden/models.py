from dataclasses import dataclass, field

from zato.common.typing_ import any_, dict_, list_, optional, strdict
from zato.server.service import Model, ModelCtx, Service


@dataclass(init=False)
class Line(Model):
    sku: str
    count: int = 1


@dataclass(init=False)
class Order(Model):
    order_id: int
    lines: list_[Line]
    note: optional[str]
    tags: list_[str] = field(default_factory=list)
    extra: strdict = field(default_factory=dict)
    anything: any_ = None


@dataclass(init=False)
class Checked(Model):
    low: int
    high: int
    width: int = 0

    def after_created(self, ctx: ModelCtx):
        if self.high < self.low:
            raise Exception('high is below low')
        self.width = self.high - self.low


class Save(Service):
    name = 'model.save'
    input = Order
    output = Order

    def handle(self):
        self.response.payload = self.request.input


class Types(Service):
    name = 'model.types'
    input = Order

    def handle(self):
        order = self.request.input
        self.response.payload = {
            'order_id': type(order.order_id).__name__, 'line': type(order.lines[0]).__name__,
            'count': order.lines[0].count, 'note': order.note, 'key': order['order_id'],
        }


class ByHand(Service):
    name = 'model.by-hand'

    def handle(self):
        order = Order.from_dict(self.request.payload)
        self.response.payload = {'dict': order.to_dict(), 'json': order.to_json()}


class ListOf(Service):
    name = 'model.list'
    input = list_[Line]
    output = list_[Line]

    def handle(self):
        self.response.payload = [line for line in self.request.input if line.count > 1]


class AfterCreated(Service):
    name = 'model.after-created'
    input = Checked

    def handle(self):
        self.response.payload = {'width': self.request.input.width}


class InSimpleIO(Service):
    name = 'model.in-sio'

    class SimpleIO:
        input = Line
        output = Line

    def handle(self):
        line = Line()
        line.sku = self.request.input.sku
        line.count = 5
        self.response.payload = line

"""Models: typed input with parts of its own."""

from dataclasses import dataclass

from zato.server.service import Model, Service


@dataclass(init=False)
class Item(Model):
    code: str
    count: int = 1


@dataclass(init=False)
class Order(Model):
    customer: str
    items: list[Item]
    notes: str = ''


@dataclass(init=False)
class Booked(Model):
    customer: str
    pieces: int


class Book(Service):
    """Books an order."""

    name = 'examples.book'

    class SimpleIO:
        input = Order
        output = Booked

    def handle(self):
        order = self.request.input
        booked = Booked()
        booked.customer = order.customer
        booked.pieces = sum(item.count for item in order.items)
        self.response.payload = booked

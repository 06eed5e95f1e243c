"""Declared input and output: what is not declared is not seen, what is missing is answered with 400."""

from zato.server.service import Int, List, Service


class Price(Service):
    """Adds up what items cost."""

    name = 'examples.price'
    # A name with `-` in front is optional.
    input = 'customer', Int('amount'), List('codes'), '-currency'
    output = 'customer', 'total', 'currency'

    def handle(self):
        given = self.request.input
        self.response.payload.customer = given.customer
        self.response.payload.total = given.amount * len(given.codes)
        self.response.payload.currency = given.currency or 'EUR'

"""Services of an installation of 3.2, as they were."""

from zato.server.service import Service


class CreateOrder(Service):
    """Hands an order on to the CRM.

    The CRM answers with the number under which it keeps the order.
    """
    name = 'orders.create'

    class SimpleIO:
        input_required = 'customer_id', 'sku'
        input_optional = 'item_count',
        output_required = 'order_id', 'customer_id'
        output_optional = 'channel',

    def handle(self):
        config = self.user_config.shop.orders
        order = {'sku': self.request.input.sku, 'count': self.request.input.item_count or int(config.default_count)}
        params = {'customer_id': self.request.input.customer_id}
        answer = self.out.rest['CRM'].conn.post(self.cid, order, params)
        self.response.status_code = 201
        self.response.payload.order_id = answer.data['order_id']
        self.response.payload.customer_id = self.request.input.customer_id
        self.response.payload.channel = config.channel


class GetStock(Service):
    """How many there are."""
    name = 'orders.get-stock'
    input = 'sku'
    output = 'sku', 'item_count'

    def handle(self):
        self.response.payload = {'sku': self.request.input.sku, 'item_count': len(self.request.input.sku)}

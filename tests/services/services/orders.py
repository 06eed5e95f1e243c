# -*- coding: utf-8 -*-
# zato: ide-deploy=True

# stdlib
from datetime import datetime

# Zato
from zato.server.service import Service


class CreateOrder(Service):
    """Takes an order from the shop and books it in the CRM.
    The rest of this text is the description.
    """

    class SimpleIO:
        input_required = 'customer_id', 'item'
        input_optional = 'note',
        output_required = 'order_id', 'status'
        output_optional = 'booked_at',
        response_elem = None

    def handle(self):
        self.logger.info('booking an order of customer %s', self.request.input.customer_id)

        conn = self.out.rest['CRM'].conn
        data = {'customer': self.request.input.customer_id, 'item': self.request.input.item}
        response = conn.post(self.cid, data, params={'customer_id': self.request.input.customer_id})

        if response.status_code != 201:
            raise Exception('CRM answered {}'.format(response.status_code))

        self.response.payload.order_id = response.data['order_id']
        self.response.payload.status = 'booked'
        self.response.payload.booked_at = datetime.utcnow().isoformat()
        self.response.headers['X-Order'] = str(response.data['order_id'])


class GetOrder(Service):
    name = 'orders.get'

    def handle_GET(self):
        self.response.payload = {'order_id': self.request.http.params.order_id, 'via': 'GET'}

    def handle_DELETE(self):
        self.response.status_code = 204

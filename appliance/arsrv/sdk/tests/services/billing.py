# -*- coding: utf-8 -*-

# stdlib
from contextlib import closing
from decimal import Decimal as Money

# Zato
from zato.common import ZatoException
from zato.server.service import Bool, CSV, Date, DateTime, Decimal, Dict, DictList, Float, Int, Opaque, \
     Service, UTC, UUID


class Wrapped(Service):
    class SimpleIO:
        output_required = 'status'

    def handle(self):
        self.response.payload.status = 'paid'


class NotWrapped(Service):
    class SimpleIO:
        response_elem = None
        output_required = 'status'

    def handle(self):
        self.response.payload.status = 'paid'


class OwnWrapper(Service):
    class SimpleIO:
        response_elem = 'billing_response'
        output_required = 'status'

    def handle(self):
        self.response.payload.status = 'paid'


class ClassLevel(Service):
    output = 'status'

    def handle(self):
        self.response.payload.status = 'paid'


class Types(Service):
    class SimpleIO:
        input_required = (Bool('paid'), CSV('codes'), Date('due'), DateTime('sent'), Decimal('amount'), Float('rate'),
            Int('rows'), UUID('ref'), UTC('at'), Opaque('extra'), Dict('customer', 'name', Int('-age')),
            DictList('lines', 'sku', Int('count')))
        output_optional = ('kinds', CSV('codes'), Date('due', format='DD.MM.YYYY'), Decimal('amount'), UUID('ref'), UTC('at'),
            Dict('customer', 'name', Int('-age')), DictList('lines', 'sku', Int('count')))
        response_elem = None

    def handle(self):
        input = self.request.input
        self.response.payload = dict(input)
        self.response.payload['kinds'] = {key: type(value).__name__ for key, value in input.items()}


class ByName(Service):
    class SimpleIO:
        input_required = ('id', 'user_id', 'item_count', 'is_active', 'has_errors', 'name', 'password')
        input_optional = ('max_size', 'note')
        output_optional = 'kinds'
        response_elem = None

    def handle(self):
        self.response.payload.kinds = {key: [type(value).__name__, value] for key, value in self.request.input.items()}


class Defaults(Service):
    class SimpleIO:
        input_optional = ('currency', 'discount')
        default_input_value = 'none'
        output_optional = ('currency', 'discount', 'note')
        default_output_value = '-'

    def handle(self):
        self.response.payload.currency = self.request.input.currency


class SkipEmpty(Service):
    class SimpleIO:
        output_optional = ('invoice', 'note', 'remark', 'lines')
        skip_empty_keys = True
        force_empty_keys = 'remark'
        response_elem = None

    def handle(self):
        self.response.payload = {'invoice': 'F-1', 'note': '', 'remark': '', 'lines': []}


class SkipEmptyRequest(Service):
    class SimpleIO:
        input_optional = 'invoice', 'note'
        skip_empty_request_keys = True

    def handle(self):
        self.response.payload = {'keys': sorted(self.request.input)}


class MissingOutput(Service):
    class SimpleIO:
        output_required = 'invoice', 'total'

    def handle(self):
        self.response.payload.invoice = 'F-1'


class RequireAny(Service):
    input = '-email', '-phone'

    def handle(self):
        self.request.input.require_any('email', 'phone')
        self.response.payload = {'copy': self.request.input.deepcopy()}


class GetInvoices(Service):
    class SimpleIO:
        input_required = 'customer_id'
        output_required = 'id', 'total'
        output_repeated = True

    def handle(self):
        from sqlalchemy import text

        with closing(self.outgoing.sql.get('billing').session()) as session:
            rows = session.execute(text('SELECT id, total FROM invoice WHERE customer_id=:id ORDER BY id'),
                {'id': self.request.input.customer_id})
            self.response.payload[:] = rows.fetchall()


class AddInvoice(Service):
    def handle(self):
        from sqlalchemy import text

        with closing(self.out.sql['billing'].conn.session()) as session:
            session.execute(text('INSERT INTO invoice (customer_id, total) VALUES (:customer_id, :total)'),
                self.request.payload)
            session.commit()
        self.response.status_code = 201
        self.response.payload = {'total': Money('12.50')}


class NoSuchDatabase(Service):
    def handle(self):
        try:
            self.outgoing.sql.get('nothing').session()
        except KeyError as e:
            raise ZatoException(self.cid, 'No database {}'.format(e.args[0]))

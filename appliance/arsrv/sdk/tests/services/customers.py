# -*- coding: utf-8 -*-

# stdlib
from dataclasses import dataclass

# Zato
from zato.common.typing_ import any_, list_, optional, strdict
from zato.server.service import Model, ModelCtx, Service


@dataclass(init=False)
class Address(Model):
    street: str
    city: str
    zip_code: optional[str] = None


@dataclass(init=False)
class Customer(Model):
    customer_id: int
    name: str
    addresses: list_[Address]
    main: optional[Address]
    level: str = 'basic'
    extra: any_ = None

    def after_created(self, ctx:'ModelCtx'):
        self.name = self.name.strip()


@dataclass(init=False)
class CustomerResponse(Model):
    customer: Customer
    cities: list_[str]
    meta: strdict


class SaveCustomer(Service):
    input = Customer
    output = CustomerResponse

    def handle(self):
        request = self.request.input # type: Customer

        response = CustomerResponse()
        response.customer = request
        response.cities = [item.city for item in request.addresses]
        response.meta = {'level': request.level}

        self.response.payload = response


class ImportCustomers(Service):
    input = list_[Customer]

    def handle(self):
        self.response.payload = [item.name for item in self.request.input]


class CallSave(Service):
    def handle(self):
        customer = Customer()
        customer.customer_id = 1
        customer.name = ' Ann '
        customer.addresses = []
        customer.main = None

        response = self.invoke(SaveCustomer, customer)
        self.response.payload = {
            'is_same': response.customer is customer,
            'kind': type(response).__name__,
        }

# -*- coding: utf-8 -*-

# Bunch
from bunch import Bunch, bunchify

# Zato
from zato.common.exception import Inactive
from zato.common.util import grouper
from zato.server.service import Service

from order_rules import is_valid


class Inner(Service):
    class SimpleIO:
        input_required = 'order_no'
        output_required = 'status'

    def handle(self):
        self.response.payload.status = 'order {} on {}'.format(self.request.input.order_no, self.channel.type)


class Plain(Service):
    def handle(self):
        self.response.payload = {'raw_is': self.request.raw_request, 'environ': self.environ}


class Text(Service):
    def handle(self):
        self.response.payload = 'text:' + self.request.raw_request


class Silent(Service):
    def handle(self):
        pass


class Refusing(Service):
    def accept(self):
        return False

    def handle(self):
        raise Exception('not reached')


class Failing(Service):
    def handle(self):
        raise ValueError('inner', 17)


class Forms(Service):
    """ All the ways to invoke another service.
    """
    name = 'orders.forms'

    def handle(self):
        mine = object()

        class Holder:
            pass

        holder = Holder()
        holder.mine = mine

        out = Bunch()
        out.wrapped = self.invoke('orders.inner', {'order_no': 'A1'})
        out.by_class = self.invoke(Inner, {'order_no': 'A2'})
        out.by_keywords = self.invoke('orders.inner', order_no='A3')
        out.unwrapped = self.invoke('orders.inner', {'order_no': 'A4'}, skip_response_elem=True)
        out.attribute = self.invoke('orders.inner', {'order_no': 'A5'}, as_bunch=True).response.status
        out.serialized = self.invoke('orders.inner', {'order_no': 'A6'}, serialize=True)
        out.text = self.invoke('orders.text', 'abc')
        out.silent = self.invoke('orders.silent')
        out.refused = self.invoke('orders.refusing')
        out.is_same = self.invoke('orders.plain', holder)['raw_is'] is holder
        out.environ = self.invoke('orders.plain', {'a': 1}, environ={'from': 'forms'})['environ']
        out.verbs_only = self.invoke('legacy.verbs', {'a': 1})
        out.groups = [list(group) for group in grouper(2, [1, 2, 3])]
        out.is_valid = is_valid('A1')

        self.response.payload = out


class Errors(Service):
    def handle(self):
        out = {}
        for name in ('orders.errors', 'orders.nothing', 'orders.failing', 'orders.off'):
            try:
                self.invoke(name)
            except Exception as e:
                out[name] = [type(e).__name__, str(e), isinstance(e, Inactive)]
        self.response.payload = out


class Remote(Service):
    def handle(self):
        request = bunchify(self.request.payload)
        try:
            self.response.payload = {'got': self.invoke(request.service, request.data, **request.get('options', {}))}
        except Exception as e:
            self.response.payload = {'error': [type(e).__name__, str(e)]}


class Slow(Service):
    def handle(self):
        self.sleep(5)


class WithTimeout(Service):
    def handle(self):
        from zato.common.exception import TimeoutException
        out = {'quiet': self.invoke('orders.slow', timeout=0.05, raise_timeout=False)}
        try:
            self.invoke('orders.slow', timeout=0.05)
        except TimeoutException as e:
            out['loud'] = str(e)
        self.response.payload = out


class Settings(Service):
    def handle(self):
        self.response.payload = {
            'url': self.user_config.crm.server.url,
            'same': self.config.crm.server['url'],
            'missing': self.user_config.crm.server.get('nothing', 'default'),
        }


class NewInstance(Service):
    def handle(self):
        instance = self.new_instance('orders.inner')
        self.log_input('Before')
        self.response.payload = {'name': instance.name, 'cid': instance.cid}
        self.log_output('After')

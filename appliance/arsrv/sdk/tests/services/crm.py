# -*- coding: utf-8 -*-

# stdlib
from dataclasses import dataclass

# Zato
from zato.common.typing_ import list_
from zato.server.service import Model, RESTAdapter, Service


class GetCustomer(Service):
    def handle(self):
        conn = self.out.rest['CRM'].conn
        response = conn.get(self.cid, params={'customer_id': '17', 'fields': ['name', 'email'], 'active': True},
            headers={'X-Own': 'yes'})

        self.response.payload = {
            'status': response.status_code,
            'ok': response.ok,
            'data': response.data,
            'json': response.json(),
            'text': response.text,
            'header': response.headers['X-Answer'],
            'elapsed': response.elapsed.total_seconds(),
            'cookies': dict(response.cookies),
            'class': [type(response).__name__, is_requests(response)],
            'url': response.url,
            'reason': response.reason,
        }


def is_requests(response):
    import requests
    return isinstance(response, requests.Response)


class Verbs(Service):
    def handle(self):
        conn = self.outgoing.plain_http.get('CRM').conn
        params = {'customer_id': 1}
        conn.post(self.cid, {'name': 'Ann'}, params)
        conn.send(self.cid, '{"raw": 1}', params)
        conn.put(self.cid, [1, 2], params)
        conn.patch(self.cid, b'bytes', params)
        conn.delete(self.cid, params=params)
        conn.options(self.cid, params=params)
        conn.http_request('HEAD', self.cid, '', params, timeout=1.5)
        self.rest['CRM'].get(params)
        self.rest['CRM'].post({'no': 'cid'}, params)


class Errors(Service):
    def handle(self):
        out = {}
        for what, call in {
            'no params': lambda: self.out.rest['CRM'].conn.get(self.cid),
            'missing part': lambda: self.out.rest['CRM'].conn.get(self.cid, {'other': 1}),
            'unknown': lambda: self.out.rest['nothing'],
            'inactive': lambda: self.out.rest['off'].conn.get(self.cid),
            'timeout': lambda: self.out.rest['slow'].conn.get(self.cid),
            'connection': lambda: self.out.rest['down'].conn.get(self.cid),
            'environment': lambda: self.rest['$NO_SUCH_VARIABLE'],
        }.items():
            try:
                call()
                out[what] = 'nothing'
            except Exception as e:
                out[what] = [type(e).__name__, str(e)]
        out['get'] = self.out.rest.get('nothing')
        self.response.payload = out


class Ping(Service):
    def handle(self):
        self.response.payload = self.out.rest['CRM'].conn.ping(self.cid)


class Upload(Service):
    def handle(self):
        self.out.rest['plain'].conn.upload(self.cid, b'a,b\n1,2\n', 'table', 'text/csv', file_name='t.csv')


class FormPost(Service):
    def handle(self):
        self.out.rest['form'].conn.post(self.cid, {'a': '1', 'b': ['2', '3']})


@dataclass(init=False)
class Hit(Model):
    name: str


class RestCall(Service):
    def handle(self):
        conn = self.out.rest['CRM'].conn
        hit = conn.rest_call(cid=self.cid, params={'customer_id': 1}, model=Hit)
        names = conn.rest_call(cid=self.cid, params={'customer_id': 1}, method='GET', callback=lambda data: list(data))
        try:
            conn.rest_call(cid=self.cid, params={'customer_id': 'broken'})
            failed = None
        except Exception as e:
            failed = str(e)
        self.response.payload = {'hit': hit.name, 'names': names, 'failed': failed}


class Adapter(RESTAdapter):
    conn_name = 'CRM'
    has_query_string_id = True
    query_string_id_param = 'customer_id'
    input = 'customer_id'

    def map_response(self, data, **kwargs):
        return {'mapped': data['name']}

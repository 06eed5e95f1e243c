# -*- coding: utf-8 -*-

# Zato
from zato.server.service import Service


class Handler(Service):
    def handler(self):
        self.response.payload = {'from': 'handler'}


class Verbs(Service):
    def handle_GET(self):
        self.response.payload = {'verb': 'GET', 'id': self.request.http.params.get('id')}

    def handle_POST(self):
        self.response.payload = {'verb': 'POST', 'body': self.request.payload}
        self.response.status_code = 201


class VerbsAndHandle(Service):
    def handle_GET(self):
        self.response.payload = {'by': 'handle_GET'}

    def handle(self):
        self.response.payload = {'by': 'handle', 'channel': self.chan.type}


class Http(Service):
    def handle(self):
        http = self.request.http
        self.response.payload = {
            'method': http.method,
            'path': http.path,
            'GET': http.GET,
            'POST': http.POST,
            'params': http.params,
            'user_agent': http.user_agent,
            'header': http.headers['x-request-no'],
            'form': http.get_form_data(),
            'channel': [self.channel.id, self.channel.name, self.chan.type, self.channel.data_format,
                self.channel.security.username, self.channel.sec.type],
            'wsgi': [self.wsgi_environ['REQUEST_METHOD'], self.wsgi_environ['PATH_INFO'],
                self.wsgi_environ['QUERY_STRING'], self.wsgi_environ['HTTP_X_REQUEST_NO'],
                self.wsgi_environ['REMOTE_ADDR'], self.wsgi_environ['CONTENT_TYPE'],
                self.wsgi_environ['wsgi.input'].read().decode('utf8')],
            'input': self.request.input,
            'channel_params': self.request.channel_params,
        }


class Raw(Service):
    def handle(self):
        raw = self.request.raw_request
        self.response.payload = {
            'raw': raw if isinstance(raw, str) else list(raw),
            'kind': [kind.__name__ for kind in (str, bytes) if isinstance(raw, kind)],
            'is_text_alias': self.request.text == raw,
            'payload': self.request.payload if isinstance(self.request.payload, (str, dict, list)) else 'bytes',
        }


class RawDecode(Service):
    def handle(self):
        self.response.payload = self.request.raw_request.decode('utf8').upper()


class Bunchified(Service):
    def handle(self):
        request = self.request.bunchified()
        copy = self.request.to_bunch()
        copy.customer.name = 'changed'
        self.response.payload = {'name': request.customer.name, 'kind': type(request.items_[0]).__name__}


class Headers(Service):
    def handle(self):
        self.response.headers['X-Rate-Left'] = 17
        self.response.headers['Set-Cookie'] = ['a=1', 'b=2']
        self.response.content_type = 'text/csv'
        self.response.content_encoding = 'identity'
        self.response.status_code = 202
        self.response.payload = 'id,name\n1,Ann\n'
        if self.request.payload == {'fail': True}:
            raise Exception('after the headers')


class Payloads(Service):
    def handle(self):
        kind = self.request.payload['kind']
        if kind == 'unset':
            return
        if kind == 'vivid':
            self.response.payload.a.b = 1
            return
        if kind == 'appended-text':
            self.response.payload += 'more'
            return
        import datetime, decimal, uuid
        class Plain:
            pass
        class WithDict:
            def to_dict(self):
                return {'to': 'dict'}
        class WithJson:
            def to_json(self):
                return '{"to": "json"}'
        self.response.payload = {
            'str': 'text', 'bytes': b'\x00\xff', 'dict': {'a': [1, None, True]}, 'empty-dict': {}, 'list': [1, 2],
            'empty-list': [], 'tuple': (1, 2), 'none': None, 'int': 5, 'zero': 0, 'to_dict': WithDict(), 'to_json': WithJson(),
            'dates': {'at': datetime.datetime(2024, 2, 3, 4, 5, 6), 'on': datetime.date(2024, 2, 3),
                'money': decimal.Decimal('1.50'), 'ref': uuid.UUID(int=5), 'raw': b'raw', 'set': {1}},
            'unicode': {'ż': 'ó'}, 'plain': Plain(),
        }[kind]


class Hooks(Service):
    seen = []

    @staticmethod
    def before_add_to_store(logger):
        logger.info('before_add_to_store ran')
        return True

    @staticmethod
    def after_add_to_store(logger):
        logger.info('after_add_to_store ran')

    def _note(self, what):
        self.environ.setdefault('order', []).append(what)
        if self.request.payload and self.request.payload.get('fail') == what:
            raise Exception('failed in ' + what)

    def accept(self):
        self._note('accept')
        return not (self.request.payload and self.request.payload.get('refuse'))

    def before_job(self):
        self._note('before_job')

    def before_interval_based_job(self):
        self._note('before_interval_based_job')

    def before_handle(self):
        self._note('before_handle')

    def validate_input(self):
        self._note('validate_input')

    def handle(self):
        self._note('handle')

    def validate_output(self):
        self._note('validate_output')

    def after_handle(self):
        self._note('after_handle')

    def after_job(self):
        self._note('after_job')

    def after_interval_based_job(self):
        self._note('after_interval_based_job')

    def finalize_handle(self):
        self._note('finalize_handle')
        self.response.payload = self.environ['order']


class NotDeployed(Service):
    @staticmethod
    def before_add_to_store(logger):
        return False

    def handle(self):
        pass


class Absent(Service):
    def handle(self):
        out = {}
        for path in self.request.payload:
            target = self
            try:
                for part in path.split('.'):
                    target = getattr(target, part)
                out[path] = 'there'
            except NotImplementedError as e:
                out[path] = str(e)
        self.response.payload = out


class Times(Service):
    def handle(self):
        import datetime
        time = self.time
        self.response.payload = {
            'now': time.now(), 'utcnow': time.utcnow(), 'today': time.today(), 'iso': time.isoutcnow(),
            'isonow': time.isonow('Europe/Warsaw'), 'tz': time.now('ZZ', tz='Asia/Tokyo'),
            'order': [time.yesterday(tz='UTC'), time.today(tz='UTC'), time.tomorrow(tz='UTC')],
            'reformat': time.reformat('2024-02-03 04:05:06', 'YYYY-MM-DD HH:mm:ss', 'D.M.YY h:mm a, dddd Do MMMM [at] X'),
            'object': isinstance(time.utcnow(needs_format=False), datetime.datetime),
            'day': time.one_day_from('2024-02-28T10:00:00', 'YYYY-MM-DD'),
        }

from zato.common.exception import BadRequest, Conflict, Forbidden, MethodNotAllowed, NotFound, ServiceUnavailable, \
    TooManyRequests, Unauthorized
from zato.server.service import Service

KINDS = {kind.__name__: kind for kind in (BadRequest, Conflict, Forbidden, MethodNotAllowed, NotFound, ServiceUnavailable,
    TooManyRequests, Unauthorized)}


class Raises(Service):
    name = 'chan.raises'

    def handle(self):
        self.response.headers['X-Before'] = 'set'
        kind = self.request.http.params.kind
        if kind == 'Other':
            raise ValueError('first', {'second': 2})
        if kind == 'Quiet':
            raise BadRequest(self.cid, 'not shown')
        raise KINDS[kind](self.cid, 'why', needs_msg=True) if kind == 'BadRequest' else KINDS[kind](self.cid, 'why')


class Text(Service):
    name = 'chan.text'

    def handle(self):
        raise ValueError('first', 2)


class Hl7(Service):
    name = 'chan.hl7'

    def handle(self):
        raise ValueError('first', 2)


class Path(Service):
    name = 'chan.path'

    def handle(self):
        self.response.payload = {'params': self.request.http.params, 'input': self.request.input.a}


class Verbs(Service):
    name = 'chan.verbs'

    def handle_GET(self):
        self.response.payload = 'GET'

from contextlib import closing
from dataclasses import dataclass

from zato.common.typing_ import optional
from zato.server.service import Model, RESTAdapter, Service


@dataclass(init=False)
class Seen(Model):
    method: str
    path: str
    authorization: optional[str]


def seen(response, *names):
    return [response.status_code, *(response.data[name] for name in names)]


class Verbs(Service):
    name = 'out.verbs'

    def handle(self):
        conn = self.out.rest['Echo'].conn
        same = self.outgoing.plain_http.get('Echo').conn
        self.response.payload = {
            'get': seen(conn.get(self.cid, {'id': '7 8', 'q': 'x'}), 'method', 'path', 'cid', 'component', 'ts'),
            'post': seen(conn.post(self.cid, {'a': 1}, {'id': 1}), 'method', 'content_type', 'body'),
            'send': seen(same.send(self.cid, 'text', {'id': 1}), 'method', 'body'),
            'put': seen(conn.put(self.cid, 'text', {'id': 1}), 'method'),
            'patch': seen(conn.patch(self.cid, 'text', {'id': 1}), 'method'),
            'delete': seen(conn.delete(self.cid, '', {'id': 1}), 'method'),
            'options': seen(conn.options(self.cid, '', {'id': 1}), 'method'),
            'headers': seen(conn.get(self.cid, {'id': 1}, headers={'X-Own': 'own'}), 'own'),
            'upload': seen(conn.upload(self.cid, b'content', 'doc', 'text/plain', params={'id': 1}), 'method'),
            'rest': seen(self.rest['Echo'].get({'id': 2}), 'path'),
        }


class Refusals(Service):
    name = 'out.refusals'

    def handle(self):
        said = {}
        for label, function in {
            'missing': lambda: self.rest['Echo'].get(),
            'inactive': lambda: self.rest['Off'].get(),
            'unknown': lambda: self.rest['Unknown'].get(),
            'late': lambda: self.rest['Slow'].get(timeout=0.3),
            'environment': lambda: self.rest['$NO_SUCH_VARIABLE'].get(),
            'security': lambda: self.rest['Echo'].rest_call(params={'id': 1}, sec_def_name='crm'),
        }.items():
            try:
                function()
            except Exception as exc:
                said[label] = [type(exc).__name__, str(exc.args[0]) if exc.args else '']
        self.response.payload = said


class Statuses(Service):
    name = 'out.statuses'

    def handle(self):
        response = self.rest['Teapot'].get()
        try:
            self.rest['Teapot'].rest_call()
        except Exception as exc:
            failed = 'status' in str(exc) or 'method' in str(exc)
        self.response.payload = [response.status_code, response.ok, response.data['method'], failed, self.rest['Text'].get().data]


class Ping(Service):
    name = 'out.ping'

    def handle(self):
        self.response.payload = self.out.rest['Text'].conn.ping(self.cid)


class Adapter(RESTAdapter):
    name = 'out.adapter'
    conn_name = 'Echo'
    method = 'POST'
    model = Seen
    log_response = False

    def get_path_params(self, params):
        params['id'] = 9
        return params

    def get_query_string(self):
        return {'lang': 'en'}

    def get_request(self):
        return {'sent': 'yes'}

    def get_headers(self):
        return {'X-Own': 'adapter'}

    def get_auth(self):
        return 'user', 'pass'

    def map_response(self, data, **kwargs):
        return {'model': type(data).__name__, 'path': data.path, 'auth': data.authorization}


class Bearer(RESTAdapter):
    name = 'out.bearer'
    conn_name = 'Echo'
    has_query_string_id = True
    query_string_id_param = 'id'
    input = 'id'

    def get_auth_bearer(self):
        return 'a-token'


class JsonId(RESTAdapter):
    name = 'out.json-id'
    method = 'PUT'
    has_json_id = True
    json_id_param = 'order'
    input = 'order'

    def get_conn_name(self):
        return 'Any'


class ByHooks(RESTAdapter):
    name = 'out.sec-def'
    conn_name = 'Any'

    def get_sec_def_name(self):
        return 'crm'


class Sql(Service):
    name = 'out.sql'

    def handle(self):
        from sqlalchemy import text
        with closing(self.outgoing.sql.get('db').session()) as session:
            session.execute(text('CREATE TABLE IF NOT EXISTS t (n INTEGER)'))
            session.execute(text('INSERT INTO t VALUES (:n)'), {'n': 7})
            session.commit()
            self.response.payload = [row._asdict() for row in session.execute(text('SELECT DISTINCT n FROM t'))]

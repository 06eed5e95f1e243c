import time

from zato.common.exception import BadRequest
from zato.server.service import Service, WSXHook


class Echo(Service):
    name = 'wsx.echo'

    def handle(self):
        data = self.request.payload
        if 'sleep' in data:
            time.sleep(data['sleep'])
        if 'bad' in data:
            raise BadRequest(self.cid, 'no such thing', needs_msg=True)
        if 'boom' in data:
            raise ValueError('first', 2)
        self.response.payload = {
            'data': data,
            'channel': [self.channel.name, self.channel.type, self.channel.security.username],
            'params': self.request.http.params,
            'client': self.environ['ext_client_id'],
        }


class Text(Service):
    name = 'wsx.text'

    def handle(self):
        self.response.payload = 'changed'


class Hidden(Service):
    name = 'secret.hidden'

    def handle(self):
        self.response.payload = 'never'


class Hook(WSXHook):
    name = 'wsx.hook'

    def on_connected(self):
        self.note('came')

    def on_disconnected(self):
        self.note('went')

    def note(self, what):
        ctx = self.request.input.ctx
        self.kvdb.conn.rpush('wsx-hook', f'{what} {ctx.ext_client_id} {ctx.channel_name} {ctx.pub_client_id[:3]}')


class Told(Service):
    """What the hook has noted, as far as it has come."""

    name = 'wsx.told'

    def handle(self):
        told = self.kvdb.conn.lrange('wsx-hook', 0, -1)
        self.response.payload = [one.decode() if isinstance(one, bytes) else one for one in told]


class Own(Service):
    """Tells a client its id, so that others can reach it."""

    name = 'wsx.own'

    def handle(self):
        self.response.payload = {'id': self.environ['pub_client_id']}


class Send(Service):
    """Reaches clients from a service that no WebSocket has invoked."""

    name = 'wsx.send'

    def handle(self):
        what = self.request.payload
        channel = self.wsx.channel[what.get('channel', 'live')]
        if what['do'] == 'broadcast':
            self.response.payload = {'clients': channel.broadcast(what.get('data') or 'x' * what['size'])}
        elif what['do'] == 'invoke':
            self.response.payload = {'answer': channel.invoke(what['client'], what['data'], timeout=what.get('timeout', 10))}
        else:
            channel.disconnect(what['client'])
            self.response.payload = {}

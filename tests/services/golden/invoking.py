from zato.common.exception import Inactive, ZatoException
from zato.server.service import Service


class Target(Service):
    name = 'inv.target'

    class SimpleIO:
        input_optional = ('a', 'b')
        output_optional = ('a', 'b', 'channel')

    def handle(self):
        self.response.payload = {'a': self.request.input.a, 'b': self.request.input.b, 'channel': self.channel.type}


class Plain(Service):
    name = 'inv.plain'

    def handle(self):
        self.response.payload = {'got': self.request.payload, 'raw': self.request.raw_request is self.request.payload}


class Fails(Service):
    name = 'inv.fails'

    def handle(self):
        raise ValueError('fails', 7)


class Ways(Service):
    name = 'inv.ways'

    def handle(self):
        bunch = self.invoke(Target, {'a': 1}, as_bunch=True)
        self.response.payload = {
            'dict': self.invoke('inv.target', {'a': 1, 'b': 2}),
            'class': self.invoke(Target, a=1, b=2),
            'no-elem': self.invoke('inv.target', {'a': 1}, skip_response_elem=True),
            'text': self.invoke('inv.target', {'a': 1}, serialize=True),
            'bunch': bunch.response.a,
            'plain': self.invoke('inv.plain', [1, 2]),
            'new': self.new_instance('inv.plain').name,
        }


class Refusals(Service):
    name = 'inv.refusals'

    def handle(self):
        said = {}
        for name in ('inv.unknown', 'inv.refusals', 'inv.off', 'inv.fails'):
            try:
                self.invoke(name)
            except (KeyError, Inactive, ZatoException, ValueError) as exc:
                said[name] = [type(exc).__name__, [str(arg) for arg in exc.args]]
        self.response.payload = said


class Off(Service):
    name = 'inv.off'

    def handle(self):
        pass


class Note(Service):
    """Keeps what it is given, for a later look."""
    name = 'inv.note'

    def handle(self):
        self.kvdb.conn.rpush('noted', self.name)
        self.cache.default.set('noted', {'payload': self.request.payload, 'channel': self.channel.type,
            'in_reply_to': self.in_reply_to})


class Late(Service):
    name = 'inv.late'

    def handle(self):
        self.response.payload = {'doubled': self.request.payload['n'] * 2, 'channel': self.channel.type, 'cid': self.cid}


class Usual(Service):
    name = 'inv.late-async-callback'

    def handle(self):
        self.cache.default.set('usual', [self.request.payload['doubled'], self.channel.type, self.in_reply_to])


class Asks(Service):
    name = 'inv.async'

    def handle(self):
        cid = self.invoke_async('inv.late', {'n': 4}, callback='inv.note')
        self.cache.default.set('cid', cid)
        self.invoke_async(Late, {'n': 5})
        self.response.payload = {'length': len(cid)}


class Noted(Service):
    name = 'inv.noted'

    def handle(self):
        cid = self.cache.default.get('cid')
        noted = self.cache.default.get('noted') or {'payload': {}}
        self.response.payload = {
            'doubled': noted['payload'].get('doubled'), 'channel': noted.get('channel'),
            'reply': noted.get('in_reply_to') == cid, 'same': noted['payload'].get('cid') == cid,
            'target': noted['payload'].get('channel'),
        }


class NotedUsual(Service):
    name = 'inv.noted-usual'

    def handle(self):
        usual = self.cache.default.get('usual') or [None, None, '']
        self.response.payload = [usual[0], usual[1], len(usual[2])]


class AsyncRefusals(Service):
    name = 'inv.async-refusals'

    def handle(self):
        try:
            self.invoke_async('inv.unknown')
        except KeyError as exc:
            self.response.payload = {'said': str(exc.args[0])}


class OnTarget(Service):
    name = 'inv.on-target'

    def handle(self):
        got = self.request.payload
        self.kvdb.conn.hset('fanout', got['target'], '%s %s %s' % (got['ok'], got['phase'], self.channel.type))


class OnFinal(Service):
    name = 'inv.on-final'

    def handle(self):
        self.cache.default.set('final', {'payload': self.request.payload, 'channel': self.channel.type})


class FanOut(Service):
    name = 'inv.fanout'

    def handle(self):
        cid = self.patterns.fanout.invoke({'inv.late': {'n': 1}, 'inv.fails': None}, 'inv.on-final', ['inv.on-target'])
        self.response.payload = {'length': len(cid)}


class FanOutEnd(Service):
    name = 'inv.fanout-end'

    def handle(self):
        final = self.cache.default.get('final') or {'payload': {}}
        got = final['payload']
        late = (got.get('data') or {}).get('inv.late') or {}
        failed = (got.get('data') or {}).get('inv.fails') or {}
        self.response.payload = {
            'each': self.kvdb.conn.hgetall('fanout'), 'channel': final.get('channel'), 'phase': got.get('phase'),
            'ok': got.get('ok'), 'source': got.get('source'), 'keys': sorted(late),
            'doubled': (late.get('response') or {}).get('doubled'), 'exception': failed.get('exception'),
            'on_target': got.get('on_target'), 'on_final': got.get('on_final'),
        }


class Parallel(Service):
    name = 'inv.parallel'

    def handle(self):
        self.kvdb.conn.delete('fanout')
        self.patterns.parallel.invoke(['inv.plain'], 'inv.on-target')
        self.response.payload = {'ok': True}


class ParallelEnd(Service):
    name = 'inv.parallel-end'

    def handle(self):
        self.response.payload = {'each': self.kvdb.conn.hgetall('fanout')}


class Flaky(Service):
    name = 'inv.flaky'

    def handle(self):
        tries = self.kvdb.conn.incr('tries')
        if tries % 3:
            raise ValueError('try %s' % tries)
        self.response.payload = {'tries': tries}


class Retry(Service):
    name = 'inv.retry'

    def handle(self):
        self.kvdb.conn.set('tries', 0)
        now = self.patterns.invoke_retry.invoke('inv.flaky', {}, repeats=3, seconds=0.01)
        try:
            self.patterns.invoke_retry.invoke('inv.flaky', repeats=2, seconds=0.01)
        except ValueError as exc:
            failed = exc.args[0]
        self.response.payload = {'now': now, 'failed': failed}


class RetryLater(Service):
    name = 'inv.retry-later'

    def handle(self):
        self.kvdb.conn.set('tries', 0)
        cid = self.patterns.invoke_retry.invoke('inv.flaky', {}, repeats=3, seconds=0.01, async_fallback=True,
            callback='inv.retried', context={'order': 7})
        self.response.payload = {'length': len(cid)}


class Retried(Service):
    name = 'inv.retried'

    def handle(self):
        got = self.request.payload
        self.cache.default.set('retried', [got['ok'], got['target'], got['response'], got['context'], got['retry_repeats'], got['tries']])


class RetryEnd(Service):
    name = 'inv.retry-end'

    def handle(self):
        self.response.payload = {'retried': self.cache.default.get('retried')}


class Threads(Service):
    name = 'inv.threads'

    def handle(self):
        spawned = self.spawn(lambda n: n * 2, 21)
        failing = self.run_in_thread(self.fail)
        failing.join()
        self.response.payload = {'value': spawned.get(), 'failed': str(failing.exception), 'ok': failing.successful()}

    def fail(self):
        raise ValueError('in a thread')

# -*- coding: utf-8 -*-

# stdlib
from zato.distlock import LockTimeout

# Zato
from zato.server.service import Service


class Count(Service):
    def handle(self):
        conn = self.kvdb.conn
        conn.set('counter', 5)
        conn.hset('people', 'ann', 'admin')
        conn.lpush('queue', 'a', 'b')
        with conn.pipeline() as pipe:
            pipe.incr('counter')
            pipe.get('counter')
            in_pipe = pipe.execute()
        self.response.payload = {
            'counter': conn.get('counter'),
            'people': conn.hgetall('people'),
            'queue': conn.lrange('queue', 0, -1),
            'pipe': in_pipe,
            'missing': conn.get('nothing'),
        }


class Lua(Service):
    def handle(self):
        self.kvdb.lua_container.add_lua_program('add', 'return redis.call("incrby", KEYS[1], ARGV[1])')
        self.response.payload = [
            self.kvdb.lua_container.run_lua('add', ['lua-sum'], [3]),
            self.kvdb.lua_container.run_lua('add', ['lua-sum'], [4]),
        ]


class Blocking(Service):
    def handle(self):
        self.response.payload = self.kvdb.conn.blpop('signal', timeout=20)


class Push(Service):
    def handle(self):
        self.kvdb.conn.rpush('signal', 'go')


class Caches(Service):
    def handle(self):
        cache = self.cache.get_cache('builtin', 'customers')
        cache.set('ann', {'age': 30}, expiry=60)
        cache.set('anna', [1, 2])
        cache.set('bob*', 'text')
        self.cache.default.set('ann', 'in default')

        out = {
            'get': cache.get('ann'),
            'missing': cache.get('nobody'),
            'default': cache.get('nobody', 'fallback'),
            'other': self.cache.default.get('ann'),
            'alias': self.cache.get('ann'),
            'prefix': cache.get_by_prefix('ann'),
            'suffix': cache.get_by_suffix('na'),
            'regex': cache.get_by_regex('^an+a$'),
            'contains': cache.get_contains('b*'),
            'not_contains': cache.get_not_contains('ann'),
            'all': cache.get_contains_all(['a', 'nn']),
            'any': cache.get_contains_any(['bo', 'zzz']),
            'keys': cache.keys(),
            'details': [cache.get('ann', details=True).value, cache.get('ann', details=True).expiry > 50,
                cache.get('anna', details=True).expiry],
        }
        out['expire'] = cache.expire('anna', 100)
        out['expires'] = cache.get('anna', details=True).expiry > 90
        out['set_by'] = cache.set_by_prefix('ann', 'new')
        out['after'] = cache.get_by_prefix('ann')
        out['delete'] = [cache.delete('ann'), cache.get('ann'), cache.delete('ann')]
        out['delete_by'] = cache.delete_by_regex('.*')
        out['len'] = len(cache)
        self.response.payload = out


class Locks(Service):
    def handle(self):
        out = {}
        with self.lock('invoices', ttl=30) as lock:
            out['acquired'] = lock.acquired
            out['token'] = self.kvdb.conn.get('arint:lock:invoices') == lock.token
            try:
                with self.lock('invoices', block=0.05):
                    out['second'] = 'acquired'
            except LockTimeout as e:
                out['second'] = str(e)
        out['after'] = self.kvdb.conn.get('arint:lock:invoices')

        lost = self.lock('reports', expires=30, timeout=0)
        lost.acquire()
        self.kvdb.conn.set('arint:lock:reports', 'of another')
        out['released a foreign lock'] = lost.release()
        out['foreign'] = self.kvdb.conn.get('arint:lock:reports')
        self.response.payload = out


class HeldTwice(Service):
    """ Adds to a number that is read and written apart, under a lock.
    """
    def handle(self):
        with self.lock('number', block=20):
            value = int(self.kvdb.conn.get('number') or 0)
            self.kvdb.conn.set('number', value + 1)
        self.response.payload = str(value + 1)


class NoKvdb(Service):
    def handle(self):
        self.kvdb.conn.get('a')


class ManyKeys(Service):
    def handle(self):
        cache = self.cache.get_cache('builtin', 'many')
        for number in range(2500):
            cache.set('key.{}'.format(number), number)
        out = {'len': len(cache)}
        out['deleted'] = len(cache.delete_by_prefix('key.'))
        out['left'] = len(cache)
        self.response.payload = out

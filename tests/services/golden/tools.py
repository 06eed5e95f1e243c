import os

from zato.common.util import grouper
from zato.server.service import Service

# In the form of 3.2, of the secret `hunter2`: salt of 32 bytes, 100,000 rounds.
OLD = ('$pbkdf2-sha512$100000$' + 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8' + '$' + 'oKznoDJJC0iCNrVC6IW/gN9DByxIrxuAaFdOEqJUXa/sT.uURI5u8GvHJrrqJegfK4GJvUKU3Hs7jlpQUFJRkA')


class Crypto(Service):
    name = 'tool.crypto'

    def handle(self):
        crypto = self.crypto
        token = crypto.encrypt('zażółć')
        made = crypto.hash_secret('hunter2', rounds=1000)
        try:
            crypto.decrypt('gAAAAA==')
        except ValueError as exc:
            said = str(exc)
        self.response.payload = {
            'fernet': token.startswith('gAAAAA'), 'back': crypto.decrypt(token), 'said': said,
            'old': [crypto.verify_hash('hunter2', OLD), crypto.verify_hash('hunter3', OLD), crypto.verify_hash('x', 'none')],
            'made': [made.startswith('$pbkdf2-sha512$1000$'), crypto.verify_hash('hunter2', made), made.count('=')],
            'secret': len(crypto.generate_secret()), 'password': len(crypto.generate_password()),
            'old-token': crypto.decrypt('gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA=='),
        }


class Time(Service):
    name = 'tool.time'

    def handle(self):
        time = self.time
        self.response.payload = {
            'reformat': time.reformat('03.02.2024', 'DD.MM.YYYY', 'YYYY-MM-DD'),
            'now': len(time.now()), 'utc': len(time.utcnow('YYYY')), 'day': time.today() > time.yesterday(),
            'datetime': type(time.utcnow(needs_format=False)).__name__, 'iso': 'T' in time.isoutcnow(),
        }


class Config(Service):
    name = 'tool.config'

    def handle(self):
        crm = self.user_config.crm.server
        self.response.payload = {
            'url': crm.url, 'env': crm.token, 'unset': crm.missing, 'same': self.config is self.user_config,
            'environ': os.environ['CRM_TOKEN'], 'server': self.server.fs_server_config.misc.internal,
        }


class Keys(Service):
    name = 'tool.keys'

    def handle(self):
        conn = self.kvdb.conn
        conn.hset('h', 'a', 'b')
        self.kvdb.lua_container.add_lua_program('sum', 'return KEYS[1] .. ARGV[1]')
        conn.hset('zato:kvdb:data-dict:translation:::ERP:::currency:::EUR:::CRM:::code', 'value2', '978')
        self.response.payload = {
            'hash': conn.hget('h', 'a'), 'lua': self.kvdb.lua_container.run_lua('sum', ['k'], ['v']),
            'translated': self.kvdb.translate('ERP', 'currency', 'EUR', 'CRM', 'code'),
            'default': self.translate('ERP', 'currency', 'PLN', 'CRM', 'code', default='none'),
        }


class Caches(Service):
    name = 'tool.caches'

    def handle(self):
        cache = self.cache.get_cache('builtin', 'rates')
        for key in ('eur', 'euro', 'pln'):
            cache.set(key, key.upper(), expiry=60)
        self.cache.default.set('k', {'a': [1]})
        cache.delete('pln')
        self.response.payload = [cache.get('eur'), cache.get('pln'), cache.get_by_prefix('eu'), self.cache.default.get('k')]


class Locks(Service):
    name = 'tool.locks'

    def handle(self):
        from zato.distlock import LockTimeout
        with self.lock('one', ttl=20):
            try:
                with self.lock('one', block=0.05):
                    self.response.payload = 'never'
            except LockTimeout:
                self.response.payload = 'held'


class Commands(Service):
    name = 'tool.commands'

    def handle(self):
        told = []
        good = self.commands.invoke('cat; echo err >&2', stdin='in', callback=lambda result: told.append(result.stdout))
        bad = self.commands.invoke(['/bin/sh', '-c', 'exit 3'])
        late = self.commands.invoke('sleep 5', timeout=0.2)
        self.response.payload = {
            'good': [good.is_ok, good.exit_code, good.stdout, good.stderr, good.len_stdout_bytes, good.cid == self.cid, told],
            'bad': [bad.is_ok, bad.exit_code], 'late': [late.is_ok, late.is_timeout, late.timeout_msg],
        }


class Forbidden(Service):
    name = 'tool.commands-forbidden'

    def handle(self):
        self.response.payload = {'ok': self.commands.invoke('id -u > /etc/arint-was-here').is_ok}


class Groups(Service):
    name = 'tool.grouper'

    def handle(self):
        self.sleep(0.001)
        self.logger.info('%s of %s', 1, 2)
        self.log_output('answered')
        self.response.payload = [list(group) for group in grouper(2, [1, 2, 3, 4])]

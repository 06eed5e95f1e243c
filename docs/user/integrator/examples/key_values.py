"""The key-value store, and the cache on it."""

from zato.server.service import Service


class Visit(Service):
    """Counts visits, and remembers the last visitor for a minute."""

    name = 'examples.visit'
    input = 'who'

    def handle(self):
        cache = self.cache.default
        before = cache.get('examples.last')
        cache.set('examples.last', self.request.input.who, expiry=60)
        count = self.kvdb.conn.incr('examples.visits')
        self.response.payload = {'count': count, 'before': before}

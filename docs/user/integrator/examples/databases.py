"""A database, by the outgoing connection `shop`."""

from contextlib import closing

from sqlalchemy import text

from zato.server.service import Service


class Stock(Service):
    """Says how much is there of an article."""

    name = 'examples.stock'
    input = 'article'

    def handle(self):
        with closing(self.outgoing.sql.get('shop').session()) as session:
            query = text('select count from stock where article = :article')
            row = session.execute(query, {'article': self.request.input.article}).first()
        self.response.payload = {'count': row[0] if row else 0}

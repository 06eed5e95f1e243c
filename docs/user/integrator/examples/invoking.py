"""Services that invoke each other."""

from zato.server.service import Service


class Total(Service):
    """Adds numbers."""

    name = 'examples.total'

    def handle(self):
        self.response.payload = {'total': sum(self.request.payload['numbers'])}


class Report(Service):
    """Asks another service, and starts one that it does not wait for."""

    name = 'examples.report'

    def handle(self):
        total = self.invoke(Total, {'numbers': [1, 2, 3]})['total']
        self.invoke_async('examples.archive', {'total': total})
        self.response.payload = {'total': total}


class Archive(Service):
    """Keeps a total."""

    name = 'examples.archive'

    def handle(self):
        self.logger.info('archived %s', self.request.payload['total'])

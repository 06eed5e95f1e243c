"""XML in (`data_format: xml`), CSV out (`data_format: csv`)."""

from zato.server.service import Service


class Names(Service):
    """Reads the names out of an XML document."""

    name = 'examples.names'

    def handle(self):
        names = [person.get('name') for person in self.request.payload.iter('person')]
        self.response.payload = {'names': names}


class Table(Service):
    """Answers rows."""

    name = 'examples.table'

    def handle(self):
        self.response.payload = [{'name': 'anna', 'age': 30}, {'name': 'bert', 'age': 40}]

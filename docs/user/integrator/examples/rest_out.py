"""Calling another system over the outgoing connection `CRM` (`url_path: /customers/{id}`)."""

from requests.exceptions import ConnectionError

from zato.server.service import Service


class Customer(Service):
    """Looks a customer up."""

    name = 'examples.customer'
    input = 'id'

    def handle(self):
        crm = self.out.rest['CRM'].conn
        try:
            # Parts of the path in braces are taken out of the parameters, the rest becomes the query.
            answer = crm.get(self.cid, {'id': self.request.input.id, 'fields': 'name'})
        except ConnectionError:
            self.response.status_code = 503
            self.response.payload = {'reason': 'the CRM is away'}
            return
        if answer.status_code == 404:
            self.response.status_code = 404
            return
        self.response.payload = {'name': answer.data['name']}

"""What a REST channel brings (`url_path: /documents/{id}`), and what it sends back."""

from zato.server.service import Service


class Documents(Service):
    """Gives and removes documents."""

    name = 'examples.documents'

    def handle_GET(self):
        http = self.request.http
        self.response.headers['X-Language'] = http.GET.get('language', 'en')
        self.response.content_type = 'text/plain; charset=utf-8'
        self.response.payload = f'document {http.params.id}'

    def handle_DELETE(self):
        self.response.status_code = 204

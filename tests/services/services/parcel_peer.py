"""The other side of golden/openapi/parcels.json: prints its port, then one line per request."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

PARCEL = {
    'id': '5a7f0f4e-0000-4000-8000-000000000001', 'weight': 1.5, 'content': None, 'class': 'box',
    'to': {'name': 'Anna', 'city': 'Oslo', 'country': 'NO'},
}


class Parcels(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0)).decode()
        url = urlsplit(self.path)
        seen = {'method': self.command, 'path': self.path, 'body': body}
        for name in ('Authorization', 'Content-Type', 'Accept'):
            seen[name] = self.headers.get(name)
        print(json.dumps(seen), flush=True)
        path = unquote(url.path)
        if path == '/v2/parcels' and self.command == 'GET':
            self.send(200, {'items': [PARCEL], 'next': None}, 'application/vnd.parcels+json')
        elif path == '/v2/parcels':
            self.send(201, {**json.loads(body), 'id': PARCEL['id']})
        elif path.endswith('/label'):
            self.send(404, {'message': 'no such parcel'})
        else:
            self.send(204)

    do_GET = do_POST = do_HEAD = answer

    def send(self, status, document=None, media='application/json'):
        body = b'' if document is None else json.dumps(document).encode()
        self.send_response(status)
        if body:
            self.send_header('Content-Type', media)
        if status != 204:
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(('127.0.0.1', 0), Parcels)
print(server.server_address[1], flush=True)
sys.stdout.flush()
server.serve_forever()

"""The other system: a small CRM over HTTP, for tests.  Prints its port, then one line per request."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Crm(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_HEAD(self):
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        line = {'path': self.path, 'cid': self.headers.get('X-Zato-CID'),
                'authorization': self.headers.get('Authorization'), 'body': json.loads(body)}
        print(json.dumps(line), flush=True)
        answer = json.dumps({'order_id': 4711}).encode()
        self.send_response(201)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(('127.0.0.1', 0), Crm)
print(server.server_address[1], flush=True)
sys.stdout.flush()
server.serve_forever()

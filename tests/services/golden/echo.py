"""Another system: tells in JSON what it was asked."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self):
        length = int(self.headers.get('Content-Length') or 0)
        body = self.rfile.read(length).decode('utf8')
        path = self.path.partition('?')[0]
        status, kind = 200, 'application/json'
        if path.startswith('/status/'):
            status = int(path.split('/')[2])
        if path == '/slow':
            time.sleep(3)
        text = json.dumps({
            'method': self.command,
            'path': self.path,
            'cid': self.headers.get('X-Zato-CID'),
            'component': bool(self.headers.get('X-Zato-Component')),
            'ts': bool(self.headers.get('X-Zato-Msg-TS')),
            'content_type': self.headers.get('Content-Type'),
            'authorization': self.headers.get('Authorization'),
            'own': self.headers.get('X-Own'),
            'body': body,
        })
        if path == '/text':
            kind, text = 'text/plain', 'plain text'
        data = text.encode()
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = answer

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(('127.0.0.1', 0), Echo)
print(server.server_address[1], flush=True)
sys.stdout.flush()
server.serve_forever()

"""The other side of the tests of credentials, run by the system's Python.

Makes OAuth 2.0 tokens and asks for them, signs JSON Web Tokens with PyJWT (Debian's python3-jwt) and shows its keys, and
lets in by NTLM as Samba's ntlm_auth (Debian's winbind) says.  Its port is the first line it prints; /control says what it
saw and changes what it does.
"""

import base64
import json
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

LOCK = threading.Lock()
STATE = {"tokens": 0, "oldest": 1, "expires_in": 3600, "jwks": 0, "handshakes": 0, "fields": [], "connections": []}
KEYS = {}


def add_key(kid, algorithm):
    """Makes a key that is shown from now on."""
    if algorithm.startswith("ES"):
        KEYS[kid] = (ec.generate_private_key(ec.SECP256R1()), algorithm)
    else:
        KEYS[kid] = (rsa.generate_private_key(public_exponent=65537, key_size=2048), algorithm)


def number(value, length=None):
    """A number as JSON Web Keys have it."""
    raw = value.to_bytes(length or (value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def public(kid):
    """A key's public part as a JSON Web Key."""
    key, algorithm = KEYS[kid]
    numbers = key.public_key().public_numbers()
    common = {"kid": kid, "use": "sig", "alg": algorithm}
    if algorithm.startswith("ES"):
        return {**common, "kty": "EC", "crv": "P-256", "x": number(numbers.x, 32), "y": number(numbers.y, 32)}
    return {**common, "kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}


class Ntlm:
    """Samba's server side of NTLM, one process for one connection."""

    def __init__(self):
        self.helper = subprocess.Popen(
            ["ntlm_auth", "--helper-protocol=squid-2.5-ntlmssp", "--username=anna", "--domain=CORP", "--password=s3cret"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def say(self, line):
        """Asks it one thing."""
        self.helper.stdin.write(line.encode() + b"\n")
        self.helper.stdin.flush()
        return self.helper.stdout.readline().decode().strip()

    def end(self):
        """Ends it."""
        self.helper.kill()
        self.helper.wait()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    ntlm = None
    user = None

    def log_message(self, *args):
        """Prints nothing."""

    def finish(self):
        """The connection ends."""
        if self.ntlm:
            self.ntlm.end()
        super().finish()

    def answer(self, status, document, headers=()):
        """Answers with JSON."""
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def take(self):
        """Serves any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        getattr(self, "do_" + path.strip("/").split("/")[0], self.do_unknown)(body)

    do_GET = do_POST = do_HEAD = do_PUT = take

    def do_unknown(self, body):
        """Nothing is there."""
        self.answer(404, {"error": "unknown"})

    def do_control(self, body):
        """What was seen, and what is to be."""
        if body:
            wish = json.loads(body)
            if "add_key" in wish:
                add_key(*wish["add_key"])
            if "sign" in wish:
                sign = wish["sign"]
                key, algorithm = KEYS[sign["kid"]]
                token = jwt.encode(sign["claims"], key, algorithm=algorithm, headers={"kid": sign["kid"]})
                self.answer(200, {"token": token})
                return
            with LOCK:
                STATE.update(wish.get("state", {}))
        with LOCK:
            self.answer(200, STATE)

    def do_jwks(self, body):
        """The keys."""
        with LOCK:
            STATE["jwks"] += 1
        self.answer(200, {"keys": [{"kty": "XYZ", "kid": "strange"}, *map(public, KEYS)]})

    def do_token(self, body):
        """Makes a token, slowly."""
        if "json" in self.headers.get("Content-Type", ""):
            fields = json.loads(body)
        else:
            fields = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        time.sleep(0.3)
        with LOCK:
            STATE["fields"].append({key: value for key, value in fields.items() if "secret" not in key})
            if fields.get("client_secret", fields.get("my_secret")) != "cl1ent" or fields.get("grant_type") != "client_credentials":
                self.answer(401, {"error": "invalid_client"})
                return
            STATE["tokens"] += 1
            self.answer(200, {"access_token": f"minted-{STATE['tokens']}", "token_type": "Bearer", "expires_in": STATE["expires_in"]})

    def do_api(self, body):
        """What needs a token."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        with LOCK:
            oldest = STATE["oldest"]
        if scheme == "Bearer" and token.startswith("minted-") and int(token.removeprefix("minted-")) >= oldest:
            self.answer(200, {"token": token})
        else:
            self.answer(401, {"error": "invalid_token"})

    def do_ntlm(self, body):
        """What needs NTLM; who was let in stays so on this connection."""
        scheme, _, message = self.headers.get("Authorization", "").partition(" ")
        if scheme == "NTLM" and message:
            kind = base64.b64decode(message)[8]
            if kind == 1:
                self.user = None
                if self.ntlm:
                    self.ntlm.end()
                self.ntlm = Ntlm()
                reply = self.ntlm.say("YR " + message)
                self.answer(401, {}, [("WWW-Authenticate", "NTLM " + reply.split(" ", 1)[1])])
                return
            with LOCK:
                STATE["handshakes"] += 1
            reply = self.ntlm.say("KK " + message)
            if reply.startswith("AF"):
                self.user = reply.split(" ", 1)[1]
        if self.user is None:
            self.answer(401, {"error": "who"}, [("WWW-Authenticate", "NTLM")])
            return
        with LOCK:
            STATE["connections"].append(self.client_address[1])
        self.answer(200, {"user": self.user, "body": body.decode()})


add_key("rsa-1", "RS256")
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()

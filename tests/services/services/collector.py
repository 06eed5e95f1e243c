"""A collector of OTLP over HTTP: decodes what it gets with the official messages and prints it, a document a line.

Its first argument is how many requests it refuses with 503 before it takes one.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

refuse = int(sys.argv[1])


def attributes(of):
    """Attributes as an object; a value of a type that is not expected is a fault."""
    plain = {}
    for one in of:
        kind = one.value.WhichOneof("value")
        assert kind in ("string_value", "int_value"), kind
        assert one.key not in plain, one.key
        plain[one.key] = getattr(one.value, kind)
    return plain


def tell(document):
    """Prints a document."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    """Takes `/v1/traces` and `/v1/logs`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """One batch."""
        global refuse
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/x-protobuf", self.headers["Content-Type"]
        if refuse > 0:
            refuse -= 1
            tell({"refused": self.path})
            self.answer(503, b"", {"Retry-After": "1"})
            return
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                of = attributes(resource.resource.attributes)
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        tell(
                            {
                                "span": span.name,
                                "trace": span.trace_id.hex(),
                                "id": span.span_id.hex(),
                                "parent": span.parent_span_id.hex(),
                                "kind": span.kind,
                                "nanos": span.end_time_unix_nano - span.start_time_unix_nano,
                                "start": span.start_time_unix_nano,
                                "failed": span.status.code == 2,
                                "attributes": attributes(span.attributes),
                                "resource": of,
                            }
                        )
            self.answer(200, ExportTraceServiceResponse().SerializeToString())
        elif self.path == "/v1/logs":
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        tell(
                            {
                                "log": record.body.string_value,
                                "level": record.severity_text,
                                "number": record.severity_number,
                                "trace": record.trace_id.hex(),
                                "attributes": attributes(record.attributes),
                            }
                        )
            self.answer(200, ExportLogsServiceResponse().SerializeToString())
        else:
            self.answer(404, b"")

    def answer(self, status, body, headers=None):
        """Writes an answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: stdout is for documents."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()

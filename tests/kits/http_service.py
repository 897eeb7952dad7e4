"""A small HTTP server on loopback, for tests of clients: it answers by a function, and keeps what it was asked."""

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Request:
    method: str
    path: str
    headers: dict
    body: dict


@dataclass
class Service:
    """`answer(request)` returns (status, JSON) or (status, JSON, headers). `fail` comes first, so often as it says."""

    answer: object
    port: int = 0
    seen: list = field(default_factory=list)
    fail: tuple = ()
    times: int = 0

    def respond(self, request):
        self.seen.append(request)
        if self.times > 0:
            self.times -= 1
            return self.fail
        return self.answer(request)


@contextmanager
def serving(answer):
    service = Service(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            heads = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, heads, json.loads(body) if body else {})
            status, document, *more = service.respond(request)
            content = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(more[0] if more else {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.port = server.server_port
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

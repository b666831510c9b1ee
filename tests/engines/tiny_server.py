"""A server for tests, run as a program: an OpenAI-like API on the standard library, with bad manners on demand.

python tiny_server.py PORT [--models a,b] [--unready N] [--child] [--deaf] [--die MESSAGE] [--html] [--key KEY]
    [--pause SECONDS] [--loading N] [--cut TOKENS] [--certificate FILE] [--host ADDRESS] [--until-close]
    [--kill-after N] [--owner NAME] [--reset PATH] [--own-temperature]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class Handler(BaseHTTPRequestHandler):
    """Health, models, version and completions."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or tokens on a kept connection would wait 40 ms for each other
    options: argparse.Namespace
    asked = 0
    answered = itertools.count(1)
    whole = 0
    resets: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer the pages an engine asks for at its start."""
        if self.options.key and self.headers.get("Authorization") != f"Bearer {self.options.key}":
            self.reply(401, {"error": "no"})
        elif self.options.html:
            self.reply(200, "<!DOCTYPE html><html></html>", "text/html")
        elif self.path == "/health":
            type(self).asked += 1
            self.reply(503 if self.asked <= self.options.unready else 200, {})
        elif self.path == "/v1/models" and self.options.loading > 0:
            self.options.loading -= 1
            self.reply(503, {"error": "loading"})
        elif self.path == "/v1/models" and self.options.models:
            names = self.options.models.split(",")
            owner = {"owned_by": self.options.owner} if self.options.owner else {}
            self.reply(200, {"data": [{"id": name, "max_model_len": 2048, **owner} for name in names]})
        elif self.path == "/resets":
            self.reply(200, {"resets": self.resets})
        elif self.path == "/version":
            self.reply(200, {"version": "9.9.9"})
        else:
            self.reply(404, {"error": "not found"})

    def do_POST(self) -> None:
        """Stream max_tokens tokens, then the finish reason and the usage; or drop a cache."""
        if self.path in ("/reset_prefix_cache", "/flush_cache"):
            type(self).resets.append(self.path)
            self.reply(200 if self.path == self.options.reset else 404, "")
            return
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.options.kill_after is not None and self.whole >= self.options.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.own_temperature and "temperature" in request:
            self.reply(
                400, {"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model."}}
            )
            return
        tokens = request["max_tokens"]
        events: list[dict[str, Any]] = [{"choices": [{"text": " a", "finish_reason": None}]} for _ in range(tokens)]
        events.append({"choices": [{"text": "", "finish_reason": "length"}]})
        events.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.options.until_close:
            self.close_connection = True
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, event in enumerate([*map(json.dumps, events), "[DONE]"]):
            if number == self.options.cut:
                self.close_connection = True  # in the middle of the reply
                return
            self.chunk(f"data: {event}\n\n".encode())
            time.sleep(self.options.pause)
        if not self.options.until_close:
            self.wfile.write(b"0\r\n\r\n")
        type(self).whole = next(self.answered)

    def chunk(self, data: bytes) -> None:
        """One piece of a chunked body."""
        self.wfile.write(data if self.options.until_close else f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def reply(self, status: int, content: object, kind: str = "application/json") -> None:
        """One whole answer."""
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        """As usual, but a client that goes away is nothing to complain about."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--models", default="")
    parser.add_argument("--unready", type=int, default=0)
    parser.add_argument("--loading", type=int, default=0)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--die")
    parser.add_argument("--html", action="store_true")
    parser.add_argument("--key")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--cut", type=int)
    parser.add_argument("--owner", help="whose models it serves, as its list says")
    parser.add_argument("--reset", help="the route that drops its cache")
    parser.add_argument("--until-close", action="store_true", help="end replies by closing, without chunks")
    parser.add_argument("--kill-after", type=int, help="the next request after so many whole replies kills the server")
    parser.add_argument("--own-temperature", action="store_true", help="refuse requests that name a temperature")
    parser.add_argument("--certificate", help="a file with certificate and key: speak TLS")
    Handler.options = options = parser.parse_args()
    if options.die:
        sys.stderr.write(options.die + "\n")
        raise SystemExit(3)
    if options.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.child:
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    server.daemon_threads = True
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main()

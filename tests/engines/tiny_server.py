"""The stub server as an engine for tests, run as a program: an OpenAI-like API with bad manners on demand.

python tiny_server.py PORT [--models a,b] [--unready N] [--child] [--deaf] [--die MESSAGE] [--html] [--key KEY]
    [--pause SECONDS] [--loading N] [--cut TOKENS] [--certificate FILE] [--host ADDRESS] [--until-close]
    [--kill-after N] [--owner NAME] [--reset PATH] [--own-temperature] [--no-list STATUS]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from typing import Any

from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, Connection, HttpRequest, Reply, chunk, event, listen, page

NO_TEMPERATURE = "Unsupported value: 'temperature' does not support 0 with this model."


class Engine:
    """Health, models, version and completions."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.health_checks = 0
        self.whole = 0
        self.resets: list[str] = []
        self.asked: list[dict[str, Any]] = []

    def answer(self, request: HttpRequest, connection: Connection) -> Reply:
        """The reply to a request."""
        if request.method == "GET":
            return page(connection, *self.found(request))
        if request.path in ("/reset_prefix_cache", "/flush_cache"):
            self.resets.append(request.path)
            return page(connection, 200 if request.path == self.options.reset else 404, "")
        wanted = json.loads(request.body)
        self.asked.append({"body": wanted, "headers": dict(request.headers), "path": request.path})
        if self.options.kill_after is not None and self.whole >= self.options.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.own_temperature and "temperature" in wanted:
            return page(connection, 400, {"error": {"message": NO_TEMPERATURE}})
        return self.completion(wanted["max_tokens"], connection)

    def found(self, request: HttpRequest) -> tuple[Any, ...]:
        """Status, content and kind of the pages that an engine asks for at its start."""
        if self.options.key and request.headers.get("authorization") != f"Bearer {self.options.key}":
            return 401, {"error": "no"}
        if self.options.html:
            return 200, "<!DOCTYPE html><html></html>", "text/html"
        if request.path == "/health":
            self.health_checks += 1
            return 503 if self.health_checks <= self.options.unready else 200, {}
        if request.path == "/v1/models" and self.options.no_list is not None:
            return self.options.no_list, "ok", "text/plain"
        if request.path == "/v1/models" and self.options.loading > 0:
            self.options.loading -= 1
            return 503, {"error": "loading"}
        if request.path == "/v1/models" and self.options.models:
            names = self.options.models.split(",")
            owner = {"owned_by": self.options.owner} if self.options.owner else {}
            return 200, {"data": [{"id": name, "max_model_len": 2048, **owner} for name in names]}
        known = {"/resets": {"resets": self.resets}, "/asked": self.asked, "/version": {"version": "9.9.9"}}
        return (200, known[request.path]) if request.path in known else (404, {"error": "not found"})

    def completion(self, tokens: int, connection: Connection) -> Reply:
        """Stream so many tokens, then the finish reason and the usage."""
        events: list[Any] = [{"choices": [{"text": " a", "finish_reason": None}]} for _ in range(tokens)]
        events.append({"choices": [{"text": "", "finish_reason": "length"}]})
        events.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})
        chunked = not self.options.until_close
        connection.write(STREAM_HEAD if chunked else STREAM_HEAD.replace(b"transfer-encoding: chunked\r\n", b""))
        for number, content in enumerate([*events, b"[DONE]"]):
            if number == self.options.cut:
                connection.close()  # in the middle of the reply
                return
            connection.write(chunk(event(content)) if chunked else event(content))
            yield round(self.options.pause * 1e9)
        self.whole += 1
        if chunked:
            connection.write(LAST_CHUNK)
        else:
            connection.close()


async def serve(options: argparse.Namespace) -> None:
    """Serve until killed."""
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate)
    server = await listen(Engine(options).answer, options.host, options.port, tls)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await server.serve_forever()


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
    parser.add_argument("--no-list", type=int, help="status of its list of models, which says `ok`")
    parser.add_argument("--own-temperature", action="store_true", help="refuse requests that name a temperature")
    parser.add_argument("--certificate", help="a file with certificate and key: speak TLS")
    options = parser.parse_args()
    if options.die:
        sys.stderr.write(options.die + "\n")
        raise SystemExit(3)
    if options.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.child:
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()

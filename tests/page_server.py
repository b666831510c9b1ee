"""A server of one page, in a thread of the test: what it says, and how badly, can be changed while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGES = Path(__file__).parent / "data" / "pages"


def page(name: str) -> str:
    """A stored page."""
    return (PAGES / f"{name}.txt").read_text()


@dataclass
class PageServer:
    """text: the page; None: 404.   status: of a page that is there.   held: while it is clear, nothing is answered.
    location: where /metrics sends us, while the page is at /metrics/.

    asked: the headers of each request.   at_once: the most requests that were open at a time.
    """

    text: str | None
    status: int = 200
    location: str | None = None
    held: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, str]] = field(default_factory=list)
    open_now: int = 0
    at_once: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/metrics"

    @property
    def url_elsewhere(self) -> str:
        """The same by an address that is no loopback address, though it leads here."""
        return f"http://0.0.0.0:{self.port}/metrics"


def _handler(server: PageServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked.append(dict(self.headers))
            server.open_now += 1
            server.at_once = max(server.at_once, server.open_now)
            server.held.wait(10)
            body = (server.text or "").encode()
            server.open_now -= 1
            moved = server.location is not None and not self.path.endswith("/")
            self.send_response(307 if moved else server.status if server.text is not None else 404)
            if moved:
                self.send_header("Location", server.location or "")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    return Handler


@contextmanager
def serving_page(text: str | None) -> Iterator[PageServer]:
    """A page for the length of the block."""
    server = PageServer(text)
    server.held.set()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    listening.daemon_threads = True
    server.port = listening.server_address[1]
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.held.set()
        listening.shutdown()
        thread.join()
        listening.server_close()

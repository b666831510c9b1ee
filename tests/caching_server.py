"""A server on loopback that generates slowly, and may keep a cache: of prompts, of whole replies, or none.

A prompt costs `PREFILL_S`, unless its beginning was seen before and there is a prefix cache; each token `GAP_S`. A
result cache sends the whole reply to a prompt it has seen at once.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFILL_S, GAP_S = 0.03, 0.005


@contextlib.contextmanager
def serving(cache: str) -> Iterator[str]:
    """The address of a server for the length of the block. cache: "none", "prefix" or "result"."""
    seen: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        """Completions, and what an engine asks for at its start."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or a token would wait for the next

        def do_GET(self) -> None:
            """The list of models."""
            self.page({"object": "list", "data": [{"id": "cached", "object": "model"}]})

        def do_POST(self) -> None:
            """A completion, streamed."""
            wanted = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt, tokens = str(wanted["prompt"]), int(wanted["max_tokens"])
            known = prompt in seen
            seen.add(prompt)
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            if not (known and cache != "none"):
                time.sleep(PREFILL_S)
            for place in range(tokens):
                if place and not (known and cache == "result"):
                    time.sleep(GAP_S)
                self.piece({"choices": [{"index": 0, "text": " word", "finish_reason": None}]})
            self.piece({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
            self.piece({"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": tokens}})
            self.wfile.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

        def piece(self, content: Any) -> None:
            """One event, in a chunk of its own."""
            event = f"data: {json.dumps(content)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()

        def page(self, content: Any) -> None:
            """A whole page."""
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

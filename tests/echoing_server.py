"""A server that repeats the key of a request wherever a reply has room for text, run as a program; and what is left.

python echoing_server.py PORT [--models NAMES] [--status STATUS] [--last-words] [--tokens] [--refuse]

`{key}` in the names of models stands for the key. Replies take turns: each has the key in another place, or in another
form. Its own standard error has the headers of each request. With `--status`, the list of models is refused; with
`--last-words`, it ends at the first request for tokens, with the key in its last line; with `--tokens`, all replies are
good ones, with `--refuse` all are like the first.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

SERVER = Path(__file__)
PIECE = 8
LONGEST_QUOTED = 200  # characters of a message that a row keeps
TOKEN = {"choices": [{"index": 0, "text": " a", "finish_reason": None}]}
END = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
GOOD = [TOKEN, END, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}]


def replies(key: str) -> Iterator[tuple[int, dict[str, str], list[bytes]]]:
    """Status, headers and parts of each reply; the parts are written apart."""
    events = {"content-type": "text/event-stream"}
    document = {"content-type": "application/json"}
    for left in (len(key), len(key) // 2, 12, 6, 1):  # so much of the key stands before the cut
        message = "x" * (LONGEST_QUOTED - left) + key
        yield 401, document, [json.dumps({"error": {"message": message}}).encode()]
        yield 200, events, [data(TOKEN), data({"error": {"message": message}})]
        yield 200, events, [data(TOKEN), data(finish(message))]
        yield 200, events, [data(TOKEN), data(finish("error " + message))]
        yield 200, events, [data(TOKEN), data({**END, "usage": message}), data(b"[DONE]")]
        yield 200, events, [data({"surprise": message})]
        yield 500, {"content-type": "text/plain"}, [message.encode()]
        yield 307, {"location": f"http://127.0.0.1/{message}"}, [b""]
    half = len(key) // 2
    yield 401, document, [f'{{"error": "no such key: {key[:half]}'.encode(), f'{key[half:]}"}}'.encode()]
    yield 200, events, [data(finish(key))[:-half], data(finish(key))[-half:], data(b"[DONE]")]
    for form in (escaped(key), quote(key, safe=""), f"Bearer {key}", base64.b64encode(key.encode()).decode()):
        yield 403, document, [f'{{"error": {{"message": "no such key: {form}"}}}}'.encode()]
        yield 200, events, [data(finish(form)), data(b"[DONE]")]
    yield 200, {"content-type": "text/html"}, [f"<!doctype html><p>{key}</p>".encode()]
    yield 200, {**events, "content-encoding": key}, [data(b"[DONE]")]
    yield 200, events, [data({key: key})]
    yield 200, {**events, "x-key": key}, [data(one) for one in ({**GOOD[0], "model": key}, *GOOD[1:], b"[DONE]")]


def finish(reason: str) -> dict[str, Any]:
    """The end of a reply."""
    return {"choices": [{"index": 0, "text": "", "finish_reason": reason}]}


def escaped(key: str) -> str:
    """A key in JSON, each character escaped."""
    return "".join(f"\\u{ord(sign):04x}" for sign in key)


def data(event: dict[str, Any] | bytes) -> bytes:
    """One event of a stream."""
    return b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"


class Handler(BaseHTTPRequestHandler):
    """Answers with the key in its text."""

    protocol_version = "HTTP/1.1"
    options: ClassVar[argparse.Namespace]
    numbers: ClassVar[Iterator[int]] = count()

    @property
    def key(self) -> str:
        """The key of the request."""
        return (self.headers.get("authorization") or "").rpartition(" ")[2]

    def log_message(self, *_: Any) -> None:
        """Print the headers of each request."""
        sys.stderr.write(f"{self.requestline} {dict(self.headers)}\n")

    def do_GET(self) -> None:
        """Version and models."""
        if self.path == "/version":
            return self._answer(200, {}, [json.dumps({"version": f"1.0 for {self.key}"}).encode()])
        if self.path == "/metrics":
            return self._answer(200, {}, [f"vllm:num_requests_running {self.key}\n".encode()])
        if self.path != "/v1/models":
            return self._answer(404, {}, [f"{self.key}: not found".encode()])
        names = self.options.models.format(key=self.key).split(",")
        return self._answer(self.options.status, {}, [json.dumps({"data": [{"id": one} for one in names]}).encode()])

    def do_POST(self) -> None:
        """Tokens."""
        self.rfile.read(int(self.headers["content-length"]))
        if self.options.last_words:
            sys.stderr.write("x" * 290 + self.key + "\n")
            sys.stderr.flush()
            os._exit(3)
        every = list(replies(self.key))
        if self.options.tokens:
            every = [(200, {"content-type": "text/event-stream"}, [data(one) for one in (*GOOD, b"[DONE]")])]
        every = every[:1] if self.options.refuse else every
        self._answer(*every[next(self.numbers) % len(every)])

    def _answer(self, status: int, headers: dict[str, str], parts: list[bytes]) -> None:
        self.send_response(status, f"for {self.key}")
        for name, value in {"content-length": str(sum(map(len, parts))), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for part in parts:
            self.wfile.write(part)
            self.wfile.flush()
            time.sleep(0.002)  # the parts are read apart, as a rule


@contextmanager
def echoing(*options: str) -> Iterator[str]:
    """The address of a server that repeats keys."""
    with subprocess.Popen(
        [sys.executable, str(SERVER), "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"PATH": ""},
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().split()[1]}"
        finally:
            process.kill()


def texts_of(folder: Path) -> Iterator[tuple[str, str]]:
    """All files below a folder, with their text."""
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = str(file.relative_to(folder))
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            yield name, json.dumps(pq.read_table(file).to_pydict(), default=str, ensure_ascii=False)
        yield name, file.read_bytes().decode("latin-1")


def left_of(secret: str, text: str) -> list[str]:
    """The pieces of a secret in a text, in all forms."""
    forms = (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode(), json.dumps(secret)[1:-1])
    pieces = {form[at : at + PIECE] for form in forms for at in range(len(form) - PIECE + 1)}
    return sorted(piece for piece in pieces if piece in text)


def left_in(folder: Path, secrets: Iterable[str], outputs: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The pieces of secrets in all files below a folder and in some outputs, with their places."""
    places = [*texts_of(folder), *((f"output {number}", text) for number, text in enumerate(outputs))]
    return sorted({(place, piece) for place, text in places for one in secrets for piece in left_of(one, text)})


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--models", default="m")
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--last-words", action="store_true")
    parser.add_argument("--tokens", action="store_true")
    parser.add_argument("--refuse", action="store_true")
    Handler.options = parser.parse_args()
    sys.stderr.write(f"environment {dict(os.environ)}\n")
    server = ThreadingHTTPServer(("127.0.0.1", Handler.options.port), Handler)
    sys.stdout.write(f"serving {server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()

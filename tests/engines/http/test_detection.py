"""What a server speaks, found with one token of each dialect."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from engines.base import StartFailed
from engines.http.detection import Detected, detect

LIST = {"data": [{"id": "one"}]}
CHAT = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "length"}]}
COMPLETION = {"choices": [{"text": "Hi", "finish_reason": "length"}]}
ANTHROPIC = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "max_tokens"}
RESPONSE = {
    "object": "response",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
}
TGI = {"token": {"text": "Hi"}, "generated_text": "Hi", "details": {"finish_reason": "length"}}
NATIVE = {"content": "Hi", "stop": True}
VECTORS = {"object": "list", "data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 1}}
RANKS = {"results": [{"index": 0, "relevance_score": 0.5}]}
EMPTY = {"choices": [{"text": "", "delta": {"content": ""}, "finish_reason": "length"}]}


@contextmanager
def serving(
    pages: Mapping[str, Any], key: str = "", headers: list[dict[str, str]] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A server with these pages, JSON by path, behind a key; its address, and the paths that got a POST.

    `headers` collects those of each POST.
    """
    posted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            known, refused = self.path in pages, key and self.headers.get("Authorization") != f"Bearer {key}"
            body = json.dumps(pages.get(self.path)).encode()
            streams = self.command == "POST" and known
            body = b"data: " + body + b"\n\ndata: [DONE]\n\n" if streams else body
            self.send_response(401 if refused else 200 if known else 404)
            self.send_header("Content-Type", "text/event-stream" if streams else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            posted.append(self.path)
            if headers is not None:
                headers.append(dict(self.headers))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("pages", "dialect"),
    [
        ({"/v1/chat/completions": CHAT, "/v1/completions": COMPLETION}, "openai-chat"),
        ({"/v1/completions": COMPLETION}, "openai-completions"),
        ({"/v1/chat/completions": {"error": "no chat template"}, "/v1/completions": COMPLETION}, "openai-completions"),
        ({"/v1/chat/completions": COMPLETION, "/v1/completions": COMPLETION}, "openai-completions"),
        ({"/v1/chat/completions": EMPTY, "/v1/completions": EMPTY}, "openai-chat"),
    ],
)
def test_chat_is_preferred_where_it_answers_with_text(pages: dict[str, Any], dialect: str) -> None:
    """A model without a template for chat, or a route that answers in another format, is measured by completions."""
    with serving({"/v1/models": LIST, **pages}) as (url, _):
        assert asyncio.run(detect(f"{url}/v1/")) == Detected(dialect, "one")


@pytest.mark.parametrize(
    ("path", "reply", "dialect"),
    [
        ("/v1/messages", ANTHROPIC, "anthropic-messages"),
        ("/v1/responses", RESPONSE, "openai-responses"),
        ("/generate_stream", TGI, "tgi"),
        ("/completion", NATIVE, "llamacpp-completion"),
        ("/v1/embeddings", VECTORS, "openai-embeddings"),
        ("/v1/rerank", RANKS, "rerank"),
    ],
)
def test_a_server_of_one_format_is_measured_in_it(path: str, reply: dict[str, Any], dialect: str) -> None:
    """Servers of the field that have no route of OpenAI's; an embedding is proof enough without text."""
    with serving({"/v1/models": LIST, path: reply}) as (url, _):
        assert asyncio.run(detect(url)) == Detected(dialect, "one")


def test_each_format_gets_the_key_in_its_own_header() -> None:
    """Anthropic refuses a request with an ordinary key as a bearer token, even beside the right header."""
    headers: list[dict[str, str]] = []
    with serving({"/v1/models": LIST, "/v1/messages": ANTHROPIC}, headers=headers) as (url, posted):
        asyncio.run(detect(url, api_key="sesame"))
    sent = dict(zip(posted, headers, strict=True))["/v1/messages"]
    assert (sent.get("x-api-key"), sent.get("Authorization")) == ("sesame", None)


def test_what_is_given_is_believed_and_costs_no_token() -> None:
    """No reply is requested."""
    with serving({"/v1/models": {"data": [{"id": "one"}, {"id": "two"}]}}) as (url, posted):
        assert asyncio.run(detect(url, dialect="openai-chat", served_model="two")) == Detected("openai-chat", "two")
    assert posted == []


def test_the_key_is_sent() -> None:
    """With the list of models and with the token."""
    pages = {"/v1/models": LIST, "/v1/chat/completions": CHAT}
    with serving(pages, key="sesame") as (url, _):
        assert asyncio.run(detect(url, api_key="sesame")).dialect == "openai-chat"
        with pytest.raises(StartFailed, match="refused the API key"):
            asyncio.run(detect(url))


@pytest.mark.parametrize(
    ("pages", "sentence"),
    [
        ({}, r"answers in no dialect \(openai-chat: HTTP 404; openai-completions: HTTP 404; .*name one with --dialect"),
        ({"/v1/models": {"data": [{"id": "one"}, {"id": "two"}]}}, r"serves 'one', 'two'"),
        ({"/v1/models": LIST, "/v1/completions": {"error": "out of memory"}}, "openai-completions: out of memory"),
    ],
)
def test_a_server_that_cannot_be_understood_is_a_sentence(pages: dict[str, Any], sentence: str) -> None:
    """It says what each dialect got, or which models there are."""
    with serving(pages) as (url, _), pytest.raises(StartFailed, match=sentence):
        asyncio.run(detect(url))


def test_an_address_where_nothing_listens_is_a_sentence() -> None:
    """Before any dialect is tried."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        with pytest.raises(StartFailed, match="no server answers at"):
            asyncio.run(detect(f"http://127.0.0.1:{one.getsockname()[1]}"))

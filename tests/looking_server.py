"""A server that looks at images, run as a program: every chat format of the field, with images decoded by Pillow.

python looking_server.py PORT

An image that cannot be decoded is refused with 400, as is a prompt without one. Its reply has two tokens. Prompts count
a token a word and, as some models do, one for each tile of 28x28 pixels. GET `/seen` lists what it saw.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from PIL import Image

TILE = 28
WORDS = ("Two", " words")


def cost(width: int, height: int) -> int:
    """Return the tokens that an image costs."""
    return -(-width // TILE) * -(-height // TILE)


def of_url(url: str) -> bytes:
    """Return the bytes behind a data URL of a PNG."""
    head, _, data = url.partition(",")
    if head != "data:image/png;base64":
        raise ValueError(f"no PNG in base64: {head[:40]}")
    return base64.b64decode(data, validate=True)


def asked(body: Mapping[str, Any]) -> tuple[list[bytes], str]:
    """Return images and text of a prompt. Raises KeyError, TypeError or ValueError for another format."""
    if "prompt" in body:
        return [base64.b64decode(one, validate=True) for one in body["images"]], body["prompt"]
    (message,) = [one for one in body.get("messages", body.get("input")) if one["role"] == "user"]
    if "images" in message:
        return [base64.b64decode(one, validate=True) for one in message["images"]], message["content"]
    images, text = [], ""
    for part in message["content"]:
        match part["type"]:
            case "image_url":
                images.append(of_url(part["image_url"]["url"]))
            case "input_image":
                images.append(of_url(part["image_url"]))
            case "image":
                assert part["source"]["media_type"] == "image/png"
                images.append(base64.b64decode(part["source"]["data"], validate=True))
            case "text" | "input_text":
                text += part["text"]
    return images, text


def events(path: str, prompt_tokens: int) -> list[tuple[str, Any]]:
    """Return the events of a reply: their name, if any, and their data."""
    if path == "/v1/messages":
        start = {"type": "message_start", "message": {"usage": {"input_tokens": prompt_tokens, "output_tokens": 0}}}
        parts = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS
        ]
        end = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": len(WORDS)}}
        return [(one["type"], one) for one in (start, *parts, end, {"type": "message_stop"})]
    if path == "/v1/responses":
        usage = {"input_tokens": prompt_tokens, "output_tokens": len(WORDS), "total_tokens": prompt_tokens + len(WORDS)}
        parts = [{"type": "response.output_text.delta", "delta": word} for word in WORDS]
        end = {"type": "response.completed", "response": {"object": "response", "status": "completed", "usage": usage}}
        return [(one["type"], one) for one in (*parts, end)]
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(WORDS)}
    deltas = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in WORDS]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    return [("", one) for one in (*deltas, end, {"choices": [], "usage": usage})]


def lines(path: str, prompt_tokens: int) -> list[Any]:
    """Return the lines of a reply in Ollama's format."""
    parts = [{"message": {"content": word}} if path == "/api/chat" else {"response": word} for word in WORDS]
    end = {"done": True, "done_reason": "length", "prompt_eval_count": prompt_tokens, "eval_count": len(WORDS)}
    return [
        *({**part, "done": False} for part in parts),
        {**parts[0], "message": {"content": ""}, "response": "", **end},
    ]


class Looking:
    """What was seen, and the answers."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Look at the images of a prompt and reply."""
        try:
            images, text = asked(await request.json())
            found = [self.looked(request.path, image) for image in images]
        except (KeyError, TypeError, ValueError, OSError) as error:
            return web.json_response({"error": {"message": f"unreadable prompt: {error!r}"}}, status=400)
        if not found:
            return web.json_response({"error": {"message": "no image"}}, status=400)
        self.seen += found
        tokens = len(text.split()) + sum(cost(one["width"], one["height"]) for one in found)
        is_lines = request.path.startswith("/api/")
        kind = "application/x-ndjson" if is_lines else "text/event-stream"
        reply = web.StreamResponse(headers={"content-type": kind})
        await reply.prepare(request)
        if is_lines:
            for line in lines(request.path, tokens):
                await reply.write(json.dumps(line).encode() + b"\n")
        else:
            for name, data in events(request.path, tokens):
                head = f"event: {name}\n" if name else ""
                await reply.write(f"{head}data: {json.dumps(data)}\n\n".encode())
            if request.path == "/v1/chat/completions":
                await reply.write(b"data: [DONE]\n\n")
        await reply.write_eof()
        return reply

    def looked(self, path: str, image: bytes) -> dict[str, Any]:
        """Decode an image wholly. Raises OSError or ValueError if that fails."""
        with Image.open(io.BytesIO(image)) as opened:
            opened.load()
            kind = {"format": opened.format, "width": opened.width, "height": opened.height}
            return {"path": path, **kind, "pixels": hashlib.sha256(opened.tobytes()).hexdigest()}

    async def list_seen(self, request: web.Request) -> web.StreamResponse:
        """What was seen so far."""
        return web.json_response(self.seen)


async def models(request: web.Request) -> web.StreamResponse:
    """The only model."""
    return web.json_response({"data": [{"id": "tiny"}], "models": [{"name": "tiny"}]})


def main() -> None:
    """Serve on a port of loopback."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    looking, app = Looking(), web.Application(client_max_size=64 * 2**20)
    app.add_routes([web.get(path, models) for path in ("/v1/models", "/api/tags")])
    app.add_routes([web.get("/seen", looking.list_seen)])
    paths = ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat", "/api/generate")
    app.add_routes([web.post(path, looking.answer) for path in paths])
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port, print=None)


if __name__ == "__main__":
    main()

"""Webhook: a message is posted to an address that is a secret; what goes wrong is a sentence, never an error.

The result of a night is stored and shown before anybody is told. So nothing that a chat does may change it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from engines.secrets import hide, masked
from harness.errors import UsageError

PATIENCE_S = 10.0
_LONGEST_ANSWER = 200
_LEAST_SECRET = 9
"""Characters of a part of the address that is hidden by itself: shorter ones are words such as `services`."""


def address_in(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the address in an environment variable, and hide it from now on.

    Raises UsageError, which names the variable alone, if it is unset or no address of a web server.
    """
    address = environ.get(name, "").strip()
    if not address:
        raise UsageError(f"the environment has no {name}; set it to the address of the webhook")
    hide(address)
    try:
        parts = urlsplit(address)
        hide(*(part for part in (parts.path, *parts.path.split("/"), parts.query) if len(part) >= _LEAST_SECRET))
        good = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:
        good = False
    if not good or any(sign.isspace() or not sign.isprintable() for sign in address):
        raise UsageError(f"{name} is no address of a webhook; write https://host/path, without a user name")
    return address


def post(address: str, message: str, patience_s: float = PATIENCE_S) -> str:
    """Post a JSON text; return "" if it was accepted, else why not, in a sentence.

    Redirects are not followed: they could lead the message elsewhere. It takes at most `patience_s`, whatever the
    server does.
    """
    told: list[str] = []
    sender = threading.Thread(target=lambda: told.append(_send(address, message, patience_s)), daemon=True)
    sender.start()
    sender.join(patience_s)
    return told[0] if told else f"the webhook did not answer within {patience_s:g} s"


def _send(address: str, message: str, patience_s: float) -> str:
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class NoRedirect(HTTPRedirectHandler):
        def redirect_request(self, *_: Any, **__: Any) -> None:
            return None

    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "harness"}
    request = Request(address, message.encode(), headers, method="POST")
    try:
        with build_opener(NoRedirect).open(request, timeout=patience_s) as answer:
            answer.read(_LONGEST_ANSWER)
        return ""
    except HTTPError as error:
        with error:
            return f"the webhook answered with status {error.code}{_words(error)}"
    except TimeoutError:
        return f"the webhook did not answer within {patience_s:g} s"
    except (URLError, OSError, HTTPException, ValueError) as error:
        why = error.reason if isinstance(error, URLError) else error
        if isinstance(why, TimeoutError):
            return f"the webhook did not answer within {patience_s:g} s"
        return f"the webhook could not be reached: {masked(_reason(why), _LONGEST_ANSWER)}"


def _words(error: Any) -> str:
    """Return the first line of what a server answered, without secrets."""
    try:
        lines = error.read(_LONGEST_ANSWER * 4).decode(errors="replace").strip().splitlines()
    except (OSError, HTTPException):
        return ""
    return f": {masked(lines[0], _LONGEST_ANSWER)}" if lines and not lines[0].startswith("<") else ""


def _reason(why: object) -> str:
    text = getattr(why, "strerror", None) or str(why) or type(why).__name__
    return str(text)

"""Seals: messages of a master and its workers, authenticated by a secret that both sides have.

A sealed message is a mark, an HMAC-SHA-256, the nonce of its sender, the nonce of its receiver, a number and the body.
The HMAC covers the direction, the worker's name and all of the rest. A worker greets with its own nonce alone, and the
master answers with both. Every further message has both nonces and a higher number than the one before it, so that a
message counts once, in one session. Pure: no sockets. Contents are authenticated, not encrypted.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from harness.errors import UsageError

VARIABLE = "HARNESS_SECRET"
MARK = b"harness\x01"
REFUSAL = b"harness\x00"
"""Answer to a message that is not authentic, so that an honest worker can tell its user."""
_HEAD = struct.Struct(">16s16sQ")
_MAC_BYTES = 32
_NOBODY = bytes(16)
_TO_MASTER, _TO_WORKER = b"m", b"w"


class NotAuthentic(ValueError):
    """Message that does not come from the other side of this session, or that came before."""


def shared_secret(env: Mapping[str, str]) -> bytes | None:
    """Return the secret of masters and workers from the environment; None if it is not set, empty, or blank."""
    return os.fsencode(env.get(VARIABLE, "")) if env.get(VARIABLE, "").strip() else None


def check_exposed(host: str, option: str, env: Mapping[str, str]) -> None:
    """Raise UsageError if messages would leave this machine without a shared secret. option: names the host."""
    if shared_secret(env) is None and not _on_this_machine(host):
        is_what = "empty" if VARIABLE in env else "not set"
        raise UsageError(
            f"{option} {host} is not this machine's loopback, and {VARIABLE} is {is_what}; "
            f"set {VARIABLE} to the same value for the master and its workers"
        )


def _on_this_machine(host: str) -> bool:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@dataclass(frozen=True, slots=True)
class Sealed:
    """Authentic message: the nonces of both sides, its number from 1 (0: a greeting or its answer), its content."""

    sender: bytes
    receiver: bytes
    number: int
    body: bytes

    def seal(self, secret: bytes, direction: bytes, name: bytes) -> bytes:
        """Return the message as it travels."""
        rest = _HEAD.pack(self.sender, self.receiver, self.number) + self.body
        return MARK + _mac(secret, direction, name, rest) + rest


def _open(secret: bytes, direction: bytes, name: bytes, data: bytes) -> Sealed:
    mac_end = len(MARK) + _MAC_BYTES
    if not data.startswith(MARK) or len(data) < mac_end + _HEAD.size:
        raise NotAuthentic("it is not sealed")
    mac, rest = data[len(MARK) : mac_end], data[mac_end:]
    if not hmac.compare_digest(mac, _mac(secret, direction, name, rest)):
        raise NotAuthentic(f"it was sealed with another {VARIABLE}")
    sender, receiver, number = _HEAD.unpack_from(rest)
    return Sealed(sender, receiver, number, rest[_HEAD.size :])


def _mac(secret: bytes, direction: bytes, name: bytes, rest: bytes) -> bytes:
    return hmac.digest(secret, direction + struct.pack(">I", len(name)) + name + rest, "sha256")


@dataclass(slots=True)
class WorkerSeal:
    """Seal of a worker's session, and what it knows of the master's."""

    secret: bytes = field(repr=False)
    name: bytes
    nonce: bytes = field(default_factory=lambda: os.urandom(16))
    master: bytes | None = None  # its nonce, once it has answered
    _sent: int = 0
    _heard: int = 0

    def greeting(self) -> bytes:
        """Return the message that asks the master for its nonce."""
        return Sealed(self.nonce, _NOBODY, 0, b"").seal(self.secret, _TO_MASTER, self.name)

    def seal(self, body: bytes) -> bytes:
        """Return a message to the master, which must have answered the greeting."""
        assert self.master is not None
        self._sent += 1
        return Sealed(self.nonce, self.master, self._sent, body).seal(self.secret, _TO_MASTER, self.name)

    def open(self, data: bytes) -> bytes | None:
        """Return the body of a message; None for the master's answer to the greeting. Raises NotAuthentic."""
        message = _open(self.secret, _TO_WORKER, self.name, data)
        if message.receiver != self.nonce:
            raise NotAuthentic("it belongs to another session")
        if message.number == 0:
            if self.master != message.sender:
                self.master, self._sent, self._heard = message.sender, 0, 0
            return None
        if message.sender != self.master or message.number <= self._heard:
            raise NotAuthentic("it came before")
        self._heard = message.number
        return message.body


@dataclass(slots=True)
class _Session:
    """Numbers of the last messages from and to one worker."""

    heard: int = 0
    sent: int = 0


@dataclass(slots=True)
class MasterSeal:
    """Seal of a master's session with any number of workers."""

    secret: bytes = field(repr=False)
    nonce: bytes = field(default_factory=lambda: os.urandom(16))
    _sessions: dict[tuple[bytes, bytes], _Session] = field(default_factory=dict)  # by name and nonce
    _latest: dict[bytes, bytes] = field(default_factory=dict)  # the nonce of each name's last message

    def answer(self, name: bytes, data: bytes) -> bytes | None:
        """Return the answer to a greeting, None for another message. Raises NotAuthentic."""
        message = _open(self.secret, _TO_MASTER, name, data)
        if message.number or message.receiver != _NOBODY:
            return None
        return Sealed(self.nonce, message.sender, 0, b"").seal(self.secret, _TO_WORKER, name)

    def open(self, name: bytes, data: bytes) -> bytes:
        """Return the body of a worker's message. Raises NotAuthentic."""
        message = _open(self.secret, _TO_MASTER, name, data)
        if message.receiver != self.nonce:
            raise NotAuthentic("it belongs to another session")
        session = self._sessions.setdefault((name, message.sender), _Session())
        if message.number <= session.heard:
            raise NotAuthentic("it came before")
        session.heard = message.number
        self._latest[name] = message.sender
        return message.body

    def seal(self, name: bytes, body: bytes) -> bytes | None:
        """Return a message to a worker; None if nothing authentic was heard from it."""
        if (nonce := self._latest.get(name)) is None:
            return None
        session = self._sessions[name, nonce]
        session.sent += 1
        return Sealed(self.nonce, nonce, session.sent, body).seal(self.secret, _TO_WORKER, name)

"""Border: where messages of other processes reach Locust's.

Locust's sockets hand every message to code that trusts it. Those here drop a message that is not authentic, that
cannot be read, or that says something else than the words of `words`; the master goes on hearing the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import zmq.green as zmq
from locust.exception import RPCError, RPCSendError
from locust.rpc import zmqrpc
from locust.rpc.protocol import Message

from harness.drivers.locust.seals import REFUSAL, VARIABLE, MasterSeal, NotAuthentic, WorkerSeal
from harness.drivers.locust.words import FROM_MASTER, FROM_WORKERS, is_said

LARGEST_BYTES = 1 << 26
"""Longest message that is read; a peer that sends a longer one is disconnected."""
_UNREADABLE = "it cannot be read"
_rpc: Any = zmqrpc  # Locust's runners take their sockets from there


class Refused(ConnectionError):
    """Master that refuses this worker's secret, or its lack of one."""


class Border:
    """Count of dropped messages, and who is told of the first one."""

    def __init__(self, told: Callable[[str], object]) -> None:
        self.dropped = 0
        self._told = told

    def drop(self, reason: str) -> None:
        """Count a message that is not handed on. Report the first."""
        self.dropped += 1
        if self.dropped == 1:
            self._told(reason)

    def guard(self, runner: Any) -> None:
        """Hand the master's runner only messages of workers that it knows, and survive those that it cannot handle."""
        handle = runner.handle_message

        def guarded(name: str, message: Message) -> None:
            if message.type != "client_ready" and name not in runner.clients:
                self.drop("it is from no worker of this run")
                return
            try:
                handle(name, message)
            except Exception as error:
                self.drop(f"{message.type} led to {type(error).__name__}")

        runner.handle_message = guarded


def as_master(border: Border, secret: bytes | None) -> None:
    """Let Locust's master of this process listen at a guarded socket."""
    seal = None if secret is None else MasterSeal(secret)
    _rpc.Server = functools.partial(MasterSocket, border, seal)


def as_worker(border: Border, secret: bytes | None) -> None:
    """Let Locust's worker of this process speak through a guarded socket."""
    seals: dict[str, WorkerSeal] = {}  # by name: a socket that is opened again goes on with its numbers

    def open_socket(host: str, port: int, name: str) -> WorkerSocket:
        if secret is not None:
            seals.setdefault(name, WorkerSeal(secret, name.encode()))
        return WorkerSocket(border, seals.get(name), host, port, name)

    _rpc.Client = open_socket


def _bytes(message: Message) -> bytes:
    data: bytes = message.serialize()  # type: ignore[no-untyped-call]
    return data


def _message(data: bytes) -> Message | None:
    """Return a message; None if it cannot be read, whatever it is."""
    try:
        message: Message = Message.unserialize(data)  # type: ignore[no-untyped-call]
    except Exception:  # msgpack, Unicode, dates and wrong numbers of parts each raise errors of their own
        return None
    return message


class MasterSocket(zmqrpc.BaseSocket):
    """Socket of a master, as `locust.rpc.zmqrpc.Server`."""

    def __init__(self, border: Border, seal: MasterSeal | None, host: str, port: int) -> None:
        super().__init__(zmq.ROUTER, self.ipv4_only(host, port))  # type: ignore[no-untyped-call]
        self._border, self._seal = border, seal
        self.socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_BYTES)
        try:
            self.socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            raise RPCError(f"Socket bind failure: {error}") from error
        self.port = port

    def recv_from_client(self) -> tuple[str, Message]:
        """Wait for the next message that is one of a worker's; return the worker's name and the message."""
        while True:
            try:
                name, *parts = self.socket.recv_multipart()
            except zmq.ZMQError as error:
                raise RPCError("ZMQ network broken") from error
            if len(parts) != 1:
                self._border.drop(_UNREADABLE)
            elif (message := self._read(name, parts[0])) is not None:
                return message.node_id, message

    def _read(self, name: bytes, data: bytes) -> Message | None:
        """Return a worker's message; None for a greeting, which is answered, and for what is dropped."""
        try:
            body = self._opened(name, data)
        except NotAuthentic as error:
            self._border.drop(str(error))
            self._send(name, REFUSAL)
            return None
        if body is None:
            return None
        message = _message(body)
        if message is None or not isinstance(message.node_id, str) or message.node_id.encode() != name:
            self._border.drop(_UNREADABLE)
            return None
        if not is_said(FROM_WORKERS, message.type, message.data):
            self._border.drop("it says nothing that a worker says")
            return None
        return message

    def _opened(self, name: bytes, data: bytes) -> bytes | None:
        if self._seal is None:
            if data.startswith(REFUSAL[:-1]):
                raise NotAuthentic(f"it is sealed, and {VARIABLE} is not set here")
            return data
        if (answer := self._seal.answer(name, data)) is not None:
            self._send(name, answer)
            return None
        return self._seal.open(name, data)

    def send_to_client(self, message: Message) -> None:
        """Send a message to a worker; nothing if it never spoke."""
        name, body = message.node_id.encode(), _bytes(message)
        sealed = body if self._seal is None else self._seal.seal(name, body)
        if sealed is not None:
            self._send(name, sealed)

    def _send(self, name: bytes, data: bytes) -> None:
        try:
            self.socket.send_multipart([name, data])
        except zmq.ZMQError as error:
            raise RPCSendError("ZMQ sent failure") from error


class WorkerSocket(zmqrpc.Client):
    """Socket of a worker, as `locust.rpc.zmqrpc.Client`; messages wait until the master has answered a greeting."""

    def __init__(self, border: Border, seal: WorkerSeal | None, host: str, port: int, name: str) -> None:
        super().__init__(host, port, name)  # type: ignore[no-untyped-call]
        self._border, self._seal = border, seal
        self._waiting: dict[str, bytes] = {}  # the last message of each word
        self._refused = False
        self.garbled = False  # the master sent a message that cannot be read

    def send(self, message: Message) -> None:
        """Send a message to the master. Raises Refused if it refused this worker's secret."""
        if self._refused:
            raise Refused
        body = _bytes(message)
        if self._seal is None:
            self._send(body)
        elif self._seal.master is None:
            self._waiting[message.type] = body
            self._send(self._seal.greeting())
        else:
            self._send(self._seal.seal(body))

    def recv(self) -> Message:
        """Wait for the master's next message."""
        while True:
            try:
                data = self.socket.recv()
            except zmq.ZMQError as error:
                raise RPCError("ZMQ network broken") from error
            if (message := self._read(data)) is not None:
                return message

    def _read(self, data: bytes) -> Message | None:
        if data == REFUSAL:
            self._refused = self._seal is None or self._seal.master is None
            return None
        try:
            body = data if self._seal is None else self._seal.open(data)
        except NotAuthentic as error:
            self._border.drop(str(error))
            return None
        if body is None:
            waiting, self._waiting = self._waiting, {}
            for each in waiting.values():
                assert self._seal is not None
                self._send(self._seal.seal(each))
            return None
        message = _message(body)
        if message is None or not is_said(FROM_MASTER, message.type, message.data):
            self.garbled = True
            return None
        return message

    def _send(self, data: bytes) -> None:
        try:
            self.socket.send(data, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise RPCSendError("ZMQ sent failure") from error

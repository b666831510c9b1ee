"""Locust's environment, runner and web page for one trial."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Collection
from typing import Any

import gevent
from locust import runners
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc.protocol import Message
from locust.stats import stats_history

from harness.drivers.locust.border import Border, Refused, as_master, as_worker
from harness.drivers.locust.seals import VARIABLE, shared_secret
from harness.drivers.locust.users import Seats, user_class
from harness.errors import TrialFailed

PAGE_HOST = "127.0.0.1"
PAGE_PATIENCE_S = 10.0
SPAWN_PATIENCE_S = 10.0
LOOK_EVERY_S = 0.02
Heard = Callable[[str, Any], None]


class LocustSession:
    """Locust's side of one trial, from the start of its runner to its end.

    Args:
        host: Address that the web page shows.
        told: Called with the reason for which the first message of another process was dropped.
    """

    def __init__(self, seats: Seats, host: str, told: Callable[[str], object] = lambda _: None) -> None:
        self.border = Border(told)
        self.environment = Environment(user_classes=[user_class(seats)], host=host)
        self._greenlets: list[Any] = []
        self._stopped: Callable[[], object] | None = None

    @property
    def runner(self) -> Any:
        return self.environment.runner

    def lead(self, host: str, port: int) -> int:
        """Run the users in workers that connect here; return the port. Raises TrialFailed if it cannot be bound."""
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("" if host == "*" else host, port))
                port = probe.getsockname()[1]
        except OSError as error:
            raise TrialFailed(
                f"{host}:{port}: cannot listen for workers: {error.strerror or error}; "
                "choose another address with --master-bind-host and --master-bind-port"
            ) from error
        as_master(self.border, shared_secret(os.environ))
        self.border.guard(self.environment.create_master_runner(host, port))
        return port

    def follow(self, host: str, port: int, patience_s: float) -> None:
        """Run the users here, under a master at this address. Blocks until it answers, else raises TrialFailed."""
        runners.CONNECT_RETRY_COUNT = max(1, round(patience_s / runners.CONNECT_TIMEOUT))
        as_worker(self.border, shared_secret(os.environ))
        try:
            self.environment.create_worker_runner(host, port)
        except Refused as error:
            raise TrialFailed(
                f"the master at {host}:{port} refuses this worker's {VARIABLE}; set the same value on both machines"
            ) from error
        except (ConnectionError, OSError, RPCError) as error:
            raise TrialFailed(
                f"no master answers at {host}:{port}; start `harness run SCENARIO --driver locust --expect-workers N` "
                "there, with an address in --master-bind-host and --master-bind-port that is reachable from here"
            ) from error

    def show_page(self, port: int = 0) -> str:
        """Serve Locust's web page on a free loopback port; return its address. Raises TrialFailed if it is silent."""
        with socket.socket() as probe:
            probe.bind((PAGE_HOST, port))
            port = probe.getsockname()[1]
        page = self.environment.create_web_ui(PAGE_HOST, port)
        self._greenlets.append(gevent.spawn(stats_history, self.runner))
        address = f"http://{PAGE_HOST}:{page.port}"
        until_s = time.monotonic() + PAGE_PATIENCE_S
        serving: Any = page.greenlet
        while not serving.dead and time.monotonic() < until_s:
            with contextlib.suppress(OSError), socket.create_connection((PAGE_HOST, page.port), LOOK_EVERY_S):
                return address
            gevent.sleep(LOOK_EVERY_S)
        raise TrialFailed(f"Locust's page at {address} does not answer; run it again, or leave --web out")

    def forget_all_but(self, workers: Collection[str]) -> None:
        """Let Locust's master spawn users in these workers only."""
        for name in set(self.runner.clients) - set(workers):
            del self.runner.clients[name]

    async def spawn(self, users: int) -> None:
        """Spawn the users and wait for them; the plan continues without users that are late."""
        self.runner.start(users, float(max(users, 1)))
        until_s = time.monotonic() + SPAWN_PATIENCE_S
        while self.runner.user_count < users and time.monotonic() < until_s:
            await asyncio.sleep(0.01)

    def on_stop(self, stopped: Callable[[], object]) -> None:
        """Register a callback for a stop from the page or by Locust, but not by `end`."""
        events: Any = self.environment.events
        self._stopped = stopped

        def stopping(environment: Environment, **_: Any) -> None:
            if self._stopped is not None:
                self._stopped()

        events.test_stopping.add_listener(stopping)

    def on_heartbeat(self, heard: Callable[[str], object]) -> None:
        """Call `heard(worker)` for each heartbeat of a worker. For masters."""
        events: Any = self.environment.events
        events.heartbeat_sent.add_listener(lambda client_id, **_: heard(client_id))

    def send(self, kind: str, data: dict[str, Any] | None = None, worker: str | None = None) -> None:
        """Send a message: to the master, or from it to one worker or all."""
        self.runner.send_message(kind, data, worker)

    def listen(self, kind: str, heard: Heard) -> None:
        """Call `heard(sender, data)` for each message of a kind."""

        def listener(environment: Environment, msg: Message, **_: Any) -> None:
            heard(msg.node_id, msg.data)

        self.runner.register_message(kind, listener)

    def end(self) -> None:
        """Stop the users, notify the workers, close the page."""
        self._stopped = None
        for greenlet in self._greenlets:
            greenlet.kill(block=False)
        if self.runner is not None:
            self.runner.quit()
        page: Any = self.environment.web_ui
        if page is not None:
            page.stop()


def quieten() -> None:
    """Log only errors of Locust: it warns about users that are spawned at once."""
    logging.getLogger("locust").setLevel(logging.ERROR)

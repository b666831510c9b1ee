"""A real nginx as a reverse proxy and a balancer."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.process.server import free_port

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIGURATION = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream engine {{ {engines} {upstream} }}
    server {{
        listen {listen};
        {server}
        location / {{
            proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering {buffering};
        }}
    }}
}}
"""


@dataclass
class Front:
    """An nginx that runs: its address and its process."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def nginx(
    folder: Path,
    *engines: int,
    buffering: str = "off",
    server: str = "",
    upstream: str = "keepalive 16;",
    unix: bool = False,
) -> Iterator[Front]:
    """nginx before engines at these ports, unprivileged, from a folder.

    server, upstream: further lines of these blocks, such as `least_conn;` of the second.
    """
    home = folder / f"nginx-{time.monotonic_ns()}"
    home.mkdir()
    port, path = free_port(), home / "n.sock"
    secure = "ssl_certificate" in server
    listen = f"unix:{path}" if unix else f"127.0.0.1:{port}{' ssl' if secure else ''}"
    behind = " ".join(f"server 127.0.0.1:{engine};" for engine in engines)
    text = CONFIGURATION.format(
        folder=home, engines=behind, listen=listen, server=server, upstream=upstream, buffering=buffering
    )
    (home / "nginx.conf").write_text(text)
    command = [str(PROGRAM), "-p", str(home), "-e", str(home / "error.log"), "-c", str(home / "nginx.conf")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _answers(path if unix else port):
            assert process.poll() is None, (home / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        url = f"http+unix://{path}" if unix else f"{'https' if secure else 'http'}://localhost:{port}"
        yield Front(url, process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def _answers(at: Path | int) -> bool:
    with contextlib.suppress(OSError):
        if isinstance(at, int):
            socket.create_connection(("127.0.0.1", at), 1).close()
            return True
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(at))
        return True
    return False

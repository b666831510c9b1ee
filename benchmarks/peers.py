"""This client and the tools people use today against one server whose truth is known, as a Markdown table.

    python -m benchmarks.peers --venvs FOLDER [--only ours aiperf guidellm vllm] [--settings 64 512 fast] [--requests N]

FOLDER holds the environments peers-aiperf, peers-guidellm and peers-vllm; a tool that does not run is a line with its
error.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers_tools import PEERS, ROOT, Peer, Reported, Setting
from benchmarks.truth import Plan, build_stub, measure, stub_server
from harness.records import Status

SETTINGS = {
    "64": Setting("64 streams, first token at 50 ms, then one every 10 ms", 64, 960, 50_000, 10_000),
    "512": Setting("512 streams, first token at 50 ms, then one every 20 ms", 512, 2_048, 50_000, 20_000),
    "fast": Setting("as fast as it goes: 256 streams, a server without delays", 256, 3_000, 0, 0),
}
LIMIT_S = 240
_SUBREAPER = 36  # prctl(2): orphans of a tool come to us, so that their CPU is counted
_HEAD = (
    "| client | client CPU, s | TTFT p50 / p99, ms | truth | ITL p99, ms | truth | achieved / ideal rate | tokens/s |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


def run_tool(command: list[str], log: Path, limit_s: float = LIMIT_S) -> float:
    """CPU seconds of the tool's whole process tree. Raises RuntimeError with its last words when it fails."""
    before = _children_s()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with log.open("wb") as out:
        tool = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=log.parent, start_new_session=True
        )
        try:
            code = tool.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"stopped after {limit_s} s") from None
        finally:
            if tool.poll() is None:  # too slow, or we were asked to end
                os.killpg(tool.pid, signal.SIGKILL)
                tool.wait()
            _reap(tool.pid)
    if code:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise RuntimeError(f"exit code {code}: {' '.join(lines[-3:])[-300:]}")
    return _children_s() - before


def _reap(group: int) -> None:
    """Wait for what the tool left behind; what does not end by itself is ended."""
    try:
        if os.waitpid(-group, os.WNOHANG) == (0, 0):
            os.killpg(group, signal.SIGTERM)
        while True:
            os.waitpid(-group, 0)
    except (ChildProcessError, ProcessLookupError):
        return


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def truth_of(log_ns: Any, setting: Setting) -> dict[str, float]:
    """What the server knows, from its log: what it gave the last `requests` of the requests that came."""
    log = log_ns[-setting.requests :]
    span_s = (log.max() - log[:, 0].min()) / 1e9
    first = (log[:, 1] - log[:, 0]) / 1e6
    return {
        "ttft_p50": float(np.percentile(first, 50)),
        "ttft_p99": float(np.percentile(first, 99)),
        "itl_p99": float(np.percentile(np.diff(log[:, 1:], axis=1) / 1e6, 99)),
        "tokens_s": len(log) * setting.tokens / span_s,
        "rate": setting.ideal_s() / span_s,
    }


def run_peer(peer: Peer, venv: Path, program: Path, setting: Setting, folder: Path) -> str:
    """One line of the table for a tool."""
    out, log_path = folder / "out", folder / "truth"
    out.mkdir()
    with stub_server(program, setting.first_us, setting.gap_us, setting.tokens, log_path) as port:
        cpu_s = run_tool(peer.command(venv, f"http://127.0.0.1:{port}", setting, out), folder / "words")
    reported = peer.read(out)
    log_ns = np.fromfile(log_path, dtype=np.int64).reshape(-1, setting.tokens + 1)
    if not reported.requests == setting.requests <= len(log_ns):
        raise RuntimeError(f"{reported.requests} requests reported, {len(log_ns)} came, {setting.requests} were asked")
    return line(f"{peer.title} {version(venv, peer.distribution)}", cpu_s, reported, truth_of(log_ns, setting), setting)


def version(venv: Path, distribution: str) -> str:
    """The version installed there."""
    ask = f"from importlib.metadata import version; print(version({distribution!r}))"
    done = subprocess.run([str(venv / "bin" / "python"), "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run_ours(program: Path, setting: Setting) -> str:
    """One line of the table for this client, in a process of its own like the others."""
    command = [sys.executable, "-m", "benchmarks.peers", "--child", str(program), json.dumps(asdict(setting))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    seen = json.loads(done.stdout)
    return line("**this client**", seen["cpu_s"], Reported(**seen["reported"]), seen["truth"], setting)


def child(program: str, setting: Setting) -> None:
    """What `run_ours` starts: its CPU leaves out the server, which is this process's child."""
    import time

    plan = Plan(setting.requests, setting.streams, setting.tokens)
    measured = measure(Path(program), plan, setting.first_us, setting.gap_us)
    cpu_s = time.process_time()
    good = [record for record in measured.records if record.chunk_ns is not None and record.status == Status.OK]
    first = [(record.chunk_ns[0] - (record.sent_ns or 0)) / 1e6 for record in good if record.chunk_ns]
    gaps = np.concatenate([np.diff(np.asarray(record.chunk_ns)) for record in good]) / 1e6
    p50, p99, gap = (float(np.percentile(values, share)) for values, share in ((first, 50), (first, 99), (gaps, 99)))
    truth = truth_of(measured.log_ns, setting)
    print(json.dumps({"cpu_s": cpu_s, "reported": asdict(Reported(len(good), p50, p99, gap)), "truth": truth}))


def line(name: str, cpu_s: float, seen: Reported, truth: dict[str, float], setting: Setting) -> str:
    """One client's row."""
    gap = "per request only" if seen.itl_p99_ms is None else f"{seen.itl_p99_ms:.2f}"
    times = [
        f"{seen.ttft_p50_ms:.1f} / {seen.ttft_p99_ms:.1f}",
        f"{truth['ttft_p50']:.1f} / {truth['ttft_p99']:.1f}",
        gap,
        f"{truth['itl_p99']:.2f}",
        f"{truth['rate']:.2f}",
    ]
    cells = [name, f"{cpu_s:.2f}", *(times if setting.gap_us else ["-"] * 5), f"{truth['tokens_s']:,.0f}"]
    return f"| {' | '.join(cells)} |"


def table(setting: Setting, names: list[str], venvs: Path, program: Path) -> Iterator[str]:
    """The table of one setting, line by line as it comes."""
    yield f"\n**{setting.name}** ({setting.requests:,} requests, {setting.requests * setting.tokens:,} tokens)\n"
    yield _HEAD
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                if name == "ours":
                    yield run_ours(program, setting)
                else:
                    yield run_peer(PEERS[name], venvs / f"peers-{name}", program, setting, Path(folder))
            except (RuntimeError, OSError, KeyError, subprocess.SubprocessError) as error:
                yield f"| {name} | did not run: {type(error).__name__}: {str(error).replace('|', '/')} | | | | | | |"


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, default=Path("."))
    parser.add_argument("--only", nargs="+", choices=["ours", *PEERS], default=["ours", *PEERS])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--requests", type=int, help="fewer requests, to try it out")
    parser.add_argument("--child", nargs=2, metavar=("PROGRAM", "SETTING"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], Setting(**json.loads(asked.child[1])))
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started is ended
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        program = build_stub(Path(folder))
        for name in asked.settings:
            setting = replace(SETTINGS[name], requests=asked.requests or SETTINGS[name].requests)
            for text in table(setting, asked.only, asked.venvs.expanduser().absolute(), program):
                print(text, flush=True)


if __name__ == "__main__":
    main()

"""What goes wrong outside of us: one sentence for the user, the right exit code, and what was measured is kept."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import VIRTUAL_TIME, Ended, environment, manifest, records, scenario

from engines.process.server import free_port
from tests.forked import harness

pytestmark = pytest.mark.slow

QUICK = ("--out", "run", "--format", "md")
TINY_SERVER = Path(__file__).parent / "engines" / "tiny_server.py"
STEADY = [{"kind": "sustained", "rate": 40, "arrivals": "constant", "duration": "2s", "timeout": "5s"}]
IN_STEADY = 80


def serve_command(port: int | str, *arguments: str) -> str:
    """The command line of a small server."""
    return shlex.join([sys.executable, str(TINY_SERVER), "PORT", *arguments]).replace("PORT", str(port))


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server that somebody else runs: its address and its process."""
    port = free_port()
    process = subprocess.Popen(shlex.split(serve_command(port, *arguments)), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "serving\n"
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.communicate()


def run_against(
    tmp_path: Path, *, load: Any = None, env: dict[str, str] | None = None, formats: str = "md", **block: Any
) -> Ended:
    """A short run against a server."""
    keys = {"load": load} if load else {}
    path = scenario(tmp_path, engines=[{"engine": "http", **block}], **keys)
    return harness("run", str(path), "--out", "run", "--format", formats, cwd=tmp_path, env=env)


def told(ended: Ended, code: int, *words: str) -> str:
    """The one line on standard error that holds these words, after checking code and manners."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.out + ended.err
    lines = [line for line in ended.err.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, ended.err
    return lines[0]


def test_a_missing_file(tmp_path: Path) -> None:
    """Its name is told, and how to get one."""
    told(harness("run", "nothing.yaml", cwd=tmp_path), 2, "nothing.yaml", "harness init")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"engines: [\n", ("bad.yaml:2:1",)),
        (b"engines: {a: 1, a: 2}\n", ("bad.yaml:1:17", "given twice")),
        (b"\xff\xfe\x00", ("bad.yaml", "UTF-8")),
        (b"", ("bad.yaml", "empty")),
        (b"- 1\n", ("bad.yaml:1:1", "a mapping at the top")),
    ],
    ids=["broken", "doubled key", "binary", "empty", "a list"],
)
def test_unreadable_yaml(tmp_path: Path, content: bytes, words: tuple[str, ...]) -> None:
    """Line and column, and what is wrong there."""
    (tmp_path / "bad.yaml").write_bytes(content)
    told(harness("run", "bad.yaml", *QUICK, cwd=tmp_path), 2, *words)
    assert not (tmp_path / "run").exists()


def test_a_scenario_that_is_a_folder(tmp_path: Path) -> None:
    """It is no file, and that is said."""
    told(harness("run", str(tmp_path), cwd=tmp_path), 2, "harness: ", "folder")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "scenario.yaml", "--wait", "5"), ("--wait: 5 has no unit", "`5s`")),
        (("init", "--out", "no/such/folder/x.yaml"), ("no/such/folder/x.yaml", "--out")),
        (("report", "damaged"), ("manifest.json cannot be read", "cells")),
        (("report", "nothing"), ("there is no run 'nothing'",)),
    ],
    ids=["wait", "init", "damaged run", "no run"],
)
def test_slips_on_the_command_line(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """They are told like all others, and nothing is run."""
    scenario(tmp_path)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text('{"format": 0}')
    told(harness(*arguments, cwd=tmp_path), 2, *words)


def test_an_unknown_engine(tmp_path: Path) -> None:
    """The list of engines is shown."""
    path = scenario(tmp_path, engines=[{"engine": "nonsense"}])
    told(harness("run", str(path), *QUICK, cwd=tmp_path), 2, "nonsense", "http", "llama-server", "simulated")


def test_a_level_that_the_engine_lacks(tmp_path: Path) -> None:
    """It is a skipped row with its reason, and the other levels are measured."""
    path = scenario(tmp_path, engines=[{"engine": "simulated", "quantization": ["q4_0", "iq9_xl"]}])
    ended = harness("run", str(path), *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    assert "simulated has no level `iq9_xl`" in ended.out
    assert "iq9" in (tmp_path / "run" / "report.md").read_text()
    assert [cell["status"] for cell in manifest(tmp_path / "run")["cells"]] == ["complete", "skipped"]


def test_nothing_but_levels_that_the_engine_lacks(tmp_path: Path) -> None:
    """A run that can measure nothing is refused, not a success."""
    path = scenario(tmp_path, engines=[{"engine": "simulated", "quantization": "iq9_xl"}])
    ended = harness("run", str(path), *QUICK, cwd=tmp_path)
    told(ended, 2, "simulated has no level `iq9_xl`")
    assert not (tmp_path / "run").exists()


def test_an_unreachable_server(tmp_path: Path) -> None:
    """The address is named, and what to do, before anything is stored."""
    url = f"http://127.0.0.1:{free_port()}"
    told(run_against(tmp_path, url=url), 3, f"no server at {url}: start it, or correct `url`")
    assert not (tmp_path / "run").exists()


def test_a_model_name_that_the_server_does_not_list(tmp_path: Path) -> None:
    """It is sent, and what the server has is listed."""
    with server("--models", "llama-8b,qwen-7b") as (url, _):
        ended = run_against(tmp_path, url=url, served_model="lama-8b")
    assert ended.code in (0, 4), ended.err  # a busy machine makes the client slow beside a reply of 0.1 ms
    assert "Traceback" not in ended.err
    assert "served_model 'lama-8b' is sent as written, though" in ended.err
    assert "lists 'llama-8b', 'qwen-7b'" in ended.err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    """How to trust it is told."""
    certificate = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-out", str(tmp_path / "c.pem"), "-keyout", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "c.pem").read_text())
    with server("--models", "m", "--certificate", str(certificate)) as (url, _):
        secure = url.replace("http://127.0.0.1", "https://localhost")
        told(run_against(tmp_path, url=secure), 3, "no secure connection to https://localhost", "SSL_CERT_FILE")


def test_a_server_that_does_not_speak_tls(tmp_path: Path) -> None:
    """What to write in url is told, not only what OpenSSL makes of the answer."""
    with server("--models", "m") as (url, _):
        secure = url.replace("http://", "https://")
        told(run_against(tmp_path, url=secure), 3, "127.0.0.1 does not speak TLS at this port; write http:// in url")


def test_a_page_instead_of_an_api(tmp_path: Path) -> None:
    """HTML means that the address is wrong."""
    with server("--html") as (url, _):
        told(run_against(tmp_path, url=url), 3, f"{url}/v1/models answered with an HTML page")


def test_a_key_that_is_not_set(tmp_path: Path) -> None:
    """The variable is named before anything runs."""
    told(run_against(tmp_path, url="http://127.0.0.1:9", api_key_env="NO_SUCH_KEY"), 2, "NO_SUCH_KEY", "is not set")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("keys", [{"api_key_env": "SOME_KEY"}, {"headers_env": {"X-Tenant": "SOME_KEY"}}])
def test_a_key_that_is_empty(tmp_path: Path, keys: dict[str, Any]) -> None:
    """Like one that is not set, for a scenario and for an address."""
    env = {"SOME_KEY": ""}
    told(run_against(tmp_path, url="http://127.0.0.1:9", env=env, **keys), 2, "SOME_KEY", "is empty; set it")
    ended = harness("run", "http://127.0.0.1:9", "--api-key-env", "SOME_KEY", cwd=tmp_path, env=env)
    told(ended, 2, "--api-key-env SOME_KEY", "is empty; set it to the key")
    assert not (tmp_path / "run").exists()


def test_a_key_that_is_wrong(tmp_path: Path) -> None:
    """The variable is what to look at; the key is nowhere."""
    with server("--models", "m", "--key", "right") as (url, _):
        ended = run_against(tmp_path, url=url, api_key_env="SOME_KEY", env={"SOME_KEY": "wr0ng-key"})
    told(ended, 3, "refused the API key (status 401)", "api_key_env")
    assert "wr0ng-key" not in ended.err + ended.out


def test_streams_that_stop_half_way(tmp_path: Path) -> None:
    """No such reply counts as an answer: the measurement is invalid, and the report says what happened. No completed
    requests are a number and not unknown: zero.
    """
    load = [{"kind": "single_user", "requests": 3, "timeout": "5s"}]
    with server("--models", "m", "--cut", "2") as (url, _):
        ended = run_against(tmp_path, load=load, formats="csv,md", url=url)
    assert ended.code == 4, ended.err
    assert "Traceback" not in ended.out + ended.err
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    assert {row["status"] for row in records(tmp_path / "run", trial)} == {"truncated"}
    assert "the reply was cut off" in (tmp_path / "run" / "report.md").read_text()
    summary = pd.read_csv(tmp_path / "run" / "summary.csv", keep_default_na=False)
    rates = summary[summary["repetition"] == "pooled"].set_index("metric")["value"]
    assert float(rates["completed_rps"]) == 0.0
    assert float(rates["error_rate"]) == 1.0


def test_a_port_in_use(tmp_path: Path) -> None:
    """A command that insists on a port that is taken fails in its own words."""
    with server() as (url, _):
        insisting = f"exec {serve_command(url.rpartition(':')[2])}"
        ended = run_against(tmp_path, command=f"sh -c {shlex.quote(insisting)} {{port}}")
    told(ended, 3, "ended with exit code", "Address already in use")


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    """The key to correct is named."""
    told(run_against(tmp_path, command="/no/such/server --port {port}"), 3, "/no/such/server", "check `command`")


def test_a_run_that_exists(tmp_path: Path) -> None:
    """Results are never overwritten."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    told(harness("run", str(scenario(tmp_path)), *QUICK, cwd=tmp_path), 2, "run exists", "--out")
    assert (tmp_path / "run" / "precious").read_text() == "x"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', ("prompts.jsonl:2", "not JSON")),
        ('{"prompt": "a"}\n[1]\n', ("prompts.jsonl:2",)),
        ('{"promt": "a"}\n', ("prompts.jsonl:1", "prompt")),
        ("", ("prompts.jsonl", "no prompt")),
        (None, ("prompts.jsonl",)),
    ],
    ids=["cut", "a list", "no prompt", "empty", "missing"],
)
def test_a_malformed_file_of_prompts(tmp_path: Path, content: str | None, words: tuple[str, ...]) -> None:
    """File and line are named before anything runs."""
    if content is not None:
        (tmp_path / "prompts.jsonl").write_text(content)
    path = scenario(tmp_path, workload={"prompts": "prompts.jsonl"})
    told(harness("run", str(path), *QUICK, cwd=tmp_path), 2, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("size", "requests"), [("8k", 2), ("160k", 2000)], ids=["at once", "in mid-run"])
def test_a_full_disk(tmp_path: Path, size: str, requests: int) -> None:
    """No space is one sentence and exit 3, whether at once or later, and nothing is left running."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={size} none {shlex.quote(str(disk))}"
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs unshare and the right to mount a small file system")
    engine = {"engine": "simulated", "options": {"ttft_ms": 1, "tpot_ms": 0.1, "max_batch": 64}}
    path = scenario(tmp_path, engines=[engine], load=[{"kind": "sustained", "users": 16, "requests": requests}])
    command = shlex.join([sys.executable, "-P", "-m", "harness", "run", str(path), "--out", str(disk / "run")])
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && {command} --format md"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 3, done.stderr
    assert "no space left on the disk" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_file_of_prompts_is_measured(tmp_path: Path) -> None:
    """What is no mistake is not refused: the scenario reaches the process that measures, and its prompts the engine."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "output_tokens": 3}\n')
    path = scenario(tmp_path, workload={"prompts": "prompts.jsonl", "output_tokens": 4})
    ended = harness("run", str(path), *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    first = trial["prompt_files"]["default"]["offset"]
    assert [row["output_tokens"] for row in records(tmp_path / "run", trial)] == ([4, 3] * 11)[first : first + 20]


def test_names_of_any_length(tmp_path: Path) -> None:
    """Folders have short names, whatever model and load are called."""
    block = {"engine": "simulated", "variants": {"v" * 300: {"ttft_ms": 60}}}
    path = scenario(tmp_path, engines=[block], load=[{"kind": "single_user", "requests": 3, "name": "n" * 300}])
    ended = harness("run", str(path), "--out", "run", cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    assert "n" * 300 in (tmp_path / "run" / "report.md").read_text()


def expect_all_rows(tmp_path: Path, ended: Ended) -> str:
    """A server was killed: exit 3, every measured request has a row, what was answered is kept; the trial's reason."""
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.out + ended.err
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    rows = [row for row in records(tmp_path / "run", trial) if row["phase"] == "measure"]
    assert [row["request"] for row in rows] == list(range(IN_STEADY))
    statuses = Counter(row["status"] for row in rows)
    assert 0 < statuses["ok"] < IN_STEADY
    assert trial["status"] == "failed"
    reason: str = trial["reason"]
    assert reason in (tmp_path / "run" / "report.md").read_text().replace("\\", "")
    return reason


def test_a_server_of_ours_is_killed_in_mid_run(tmp_path: Path) -> None:
    """SIGKILL to the server that `command` started: the moment and the signal are named."""
    command = serve_command("{port}", "--models", "m", "--pause", "0.01", "--kill-after", "15")
    reason = expect_all_rows(tmp_path, run_against(tmp_path, load=STEADY, command=command))
    assert "SIGKILL" in reason
    assert " s into the trial" in reason


def test_a_server_of_somebody_else_is_killed_in_mid_run(tmp_path: Path) -> None:
    """SIGKILL to a server that we only know by its address: it is told since when nobody answers."""
    with server("--models", "m", "--pause", "0.01", "--kill-after", "15") as (url, _):
        reason = expect_all_rows(tmp_path, run_against(tmp_path, load=STEADY, url=url))
    assert "could not be reached from " in reason

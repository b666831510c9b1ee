"""No secret of a run is left in its files, its reports or its output, whatever a server makes of it.

The server repeats the key of each request in the places and forms of `echoing_server`. Then every file is searched for
every piece of 8 characters of every secret, Parquet files value by value.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from command import manifest, records, scenario

from tests.echoing_server import SERVER, echoing, left_in
from tests.forked import harness

KEY = "sk-Qz81/xW+7yLm03nKp92vTr56"
TENANT = "tenant/4411-aa-93b"
HUB = "hf_ZyXwVuTsRq98765432"
OTHERS = "Kq77zt19-shared-Word"
SECRETS = {"MY_KEY": KEY, "MY_TENANT": TENANT, "HF_TOKEN": HUB, "HARNESS_SECRET": OTHERS}
REQUESTS = 60  # each reply once


def assert_nothing_is_left(folder: Path, *outputs: str) -> None:
    """No file below the folder, and no output, has a piece of a secret."""
    found = left_in(folder, SECRETS.values(), outputs)
    assert not found, found[:20]


def block(**keys: Any) -> dict[str, Any]:
    """An engine whose requests have a key and a secret header."""
    headers = {"X-Tenant": "MY_TENANT"}
    return {"engine": "http", "dialect": "openai-completions", "api_key_env": "MY_KEY", "headers_env": headers, **keys}


def run_of(folder: Path, engine: dict[str, Any], **keys: Any) -> Any:
    """A run of one engine, with every report."""
    load = [{"kind": "single_user", "requests": REQUESTS, "warmup": "0s", "timeout": "5s"}]
    path = scenario(folder, engines=[engine], **{"load": load, **keys})
    return harness("run", str(path), "--out", "run", "--export", "prometheus:p.prom", cwd=folder, env=SECRETS)


@pytest.mark.slow
def test_no_piece_of_a_secret_is_in_a_run_whose_server_repeats_it(tmp_path: Path) -> None:
    """In errors, finish reasons, names of models, versions, headers: as it is, escaped, encoded, split, cut."""
    with echoing("--models", "m-{key}") as url:
        ended = run_of(tmp_path, block(url=url, metrics_urls=[f"{url}/metrics"]))
        again = harness("report", "run", cwd=tmp_path, env=SECRETS)
    assert "Traceback" not in ended.err
    stored = manifest(tmp_path / "run")
    rows = records(tmp_path / "run", stored["cells"][0]["trials"][0])
    assert len(rows) == REQUESTS
    assert sum("***" in f"{row['error']} {row['finish_reason']}" for row in rows) > REQUESTS / 2
    info = stored["cells"][0]["engine_info"]
    assert (info["model"], info["version"]) == ("m-***", "1.0 for ***")
    unread = " ".join(stored["cells"][0]["unread"])
    assert "/metrics is not in Prometheus text format: " in unread
    assert_nothing_is_left(tmp_path / "run", ended.out, ended.err, again.out, again.err)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "words"), [((), "***"), (("--last-words",), 'its last line: "xxx')])
def test_no_piece_of_a_secret_is_in_the_log_of_a_server_that_we_start(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    """It prints its environment and the headers of each request, and its last line, which a reason quotes and cuts."""
    command = f"{sys.executable} {SERVER} {{port}} {' '.join(options)}"
    ended = run_of(tmp_path, block(command=command, env={"SOME_TOKEN": "${MY_KEY}"}))
    (log,) = (tmp_path / "run").rglob("log.txt")
    assert "'SOME_TOKEN': '***'" in log.read_text()
    assert words in (tmp_path / "run" / "manifest.json").read_text() + log.read_text()
    assert_nothing_is_left(tmp_path / "run", ended.out, ended.err)
    log.write_text(f"started with {KEY}\n")  # as if harness had been killed
    harness("run", "--resume", "run", "--format", "md", cwd=tmp_path, env={**SECRETS, "SOME_TOKEN": KEY})
    assert log.read_text() == "started with ***\n"
    assert_nothing_is_left(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("load", [{"workers": 2, "kind": "sustained", "users": 4, "requests": 60, "warmup": "0s"}])
def test_no_piece_of_a_secret_comes_from_other_load_processes(tmp_path: Path, load: dict[str, Any]) -> None:
    """Their records and messages have none either."""
    with echoing() as url:
        ended = run_of(tmp_path, block(url=url), load=[{**load, "timeout": "5s"}])
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    assert trial["workers"] == 2
    assert any("***" in (row["error"] or "") for row in records(tmp_path / "run", trial))
    assert_nothing_is_left(tmp_path / "run", ended.out, ended.err)


@pytest.mark.slow
def test_the_backend_that_a_server_names_is_masked(tmp_path: Path) -> None:
    """Rows and tables are by the backend."""
    program = tmp_path / "backends.py"
    program.write_text(
        "import json, sys\n"
        f"sys.path.insert(0, {str(SERVER.parent)!r})\n"
        "import echoing_server as server\n"
        "def replies(key):\n"
        "    last = {'done': True, 'backend_used': f'gpu {key}', 'generation_time': 1}\n"
        "    yield 200, {'content-type': 'text/event-stream'}, [server.data({'token': ' a'}), server.data(last)]\n"
        "server.replies = replies\n"
        "server.main()\n"
    )
    command = f"{sys.executable} {program} {{port}}"
    run_of(tmp_path, block(command=command, dialect="generate-backend"))
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    assert {row["backend"] for row in records(tmp_path / "run", trial)} == {"gpu ***"}
    assert_nothing_is_left(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--models", "m-{key}", "--tokens"), 0),
        (("--models", "{key},b-{key}"), 3),
        (("--refuse",), 3),
        (("--status", "500"), 3),
    ],
)
def test_no_piece_of_a_key_is_shown_while_a_server_is_examined(
    tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    """`harness run URL`: in the scenario, which is shown and stored, and in the reason for which there is none."""
    with echoing(*options) as url:
        told = ("--users", "1", "--duration", "1s", "--output-tokens", "1", "--out", "run", "--api-key-env", "MY_KEY")
        ended = harness("run", url, *told, cwd=tmp_path, env=SECRETS)
    assert (ended.code in (0, 4)) if code == 0 else ended.code == code, ended.err
    if code == 0:
        assert manifest(tmp_path / "run")["cells"][0]["engine_info"]["model"] == "m-***"
    assert_nothing_is_left(tmp_path, ended.out, ended.err)


@pytest.mark.slow
def test_keys_that_are_ordinary_words_destroy_nothing_of_ours(tmp_path: Path) -> None:
    """Servers without keys get any word as one. What harness itself says, and what it is to find again, stays."""
    keys = {f"KEY_{n}": key for n, key in enumerate(("complete", "openai-completions", "measure", "m"))}
    load = [{"kind": "single_user", "requests": 5, "warmup": "0s", "timeout": "5s"}]
    with ExitStack() as servers:
        engines = [
            block(url=servers.enter_context(echoing("--tokens", "--models", key)), api_key_env=name)
            for name, key in keys.items()
        ]
        path = scenario(tmp_path, engines=engines, load=load)
        ended = harness("run", str(path), "--out", "run", cwd=tmp_path, env={**SECRETS, **keys})
    assert ended.code in (0, 4), ended.err
    cells = manifest(tmp_path / "run")["cells"]
    assert len(cells) == len(keys)
    for cell in cells:
        assert cell["status"] == "complete"
        assert cell["engine_info"]["options"]["dialect"] == "openai-completions"
        rows = records(tmp_path / "run", cell["trials"][0])
        assert {(row["status"], row["phase"], row["finish_reason"]) for row in rows} == {("ok", "measure", "length")}

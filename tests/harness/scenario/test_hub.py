"""Data sets of the hub, in a cache laid out as the hub's client lays it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.forked import harness

COMMIT = "0" * 40


def cached(home: Path) -> None:
    """Put a data set with two splits of Parquet and one JSON file into the cache."""
    folder = home / "hub" / "datasets--owner--talk"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    data = folder / "snapshots" / COMMIT / "data"
    data.mkdir(parents=True)
    for split, count in (("train", 3), ("test", 2)):
        rows = {"instruction": [f"{split} {i}" for i in range(count)], "answer": ["a"] * count}
        pq.write_table(pa.table(rows), data / f"{split}-00000-of-00001.parquet")
    (data / "extra.json").write_text(json.dumps([{"prompt": "other"}]))


@pytest.mark.parametrize(
    ("prompts", "code", "said"),
    [
        ({"hub": "owner/talk", "columns": {"prompt": "instruction"}}, 0, "not read: `answer` in 3 lines"),
        ({"hub": "owner/talk", "split": "test", "columns": {"prompt": "instruction"}}, 0, "`answer` in 2 lines"),
        ({"hub": "owner/talk", "file": "data/extra.json"}, 0, "s.yaml: fine"),
        ({"hub": "owner/talk"}, 2, "has the keys `instruction`, `answer` and no prompt"),
        ({"hub": "owner/talk", "columns": {"prompt": "question"}}, 2, "has no column `question`; its columns are "),
        ({"hub": "owner/talk", "split": "dev"}, 2, "data set owner/talk has no split `dev`"),
        ({"hub": "owner/none"}, 2, "owner/none is not in the local hub cache and HF_HUB_OFFLINE is set"),
        ({"hub": "talk"}, 2, "workload.prompts.hub"),
        ({"hub": "owner/talk", "file": "a", "split": "b"}, 2, "exclude each other"),
    ],
)  # fmt: skip
def test_a_data_set_is_read_from_the_cache(tmp_path: Path, prompts: object, code: int, said: str) -> None:
    """By split or file, with the names of its columns; a mistake is one sentence."""
    cached(tmp_path)
    scenario = {"engines": [{"engine": "simulated"}], "load": [{"kind": "single_user", "requests": 3}]}
    (tmp_path / "s.yaml").write_text(json.dumps(scenario | {"workload": {"prompts": prompts}}))
    env = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    ended = harness("validate", "s.yaml", cwd=tmp_path, env=env)
    assert ended.code == code, ended.err
    assert said in ended.out + ended.err
    assert "Traceback" not in ended.err

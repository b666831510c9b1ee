"""`python -m tests.known_answers` writes its table in docs/known-answers.md, with what is the same in every run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.known_answers.cases import GROUPS
from tests.known_answers.page import table, write

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="known-answers-") as folder:
        runs = {}
        for number, group in enumerate(GROUPS):
            if group.repeated:
                own = Path(folder) / str(number)
                own.mkdir()
                runs[group.run] = group.run(own)
        write(table(runs))

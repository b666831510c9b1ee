"""Quality by given distributions: the plug-in `known-scores` on the text `aaab`, again and again.

At each scored position the reference says (1/2, 1/4, 1/8, 1/8). After an `a`, three times of four, q8_0 says (1/2, 1/8,
1/4, 1/8); after the `b` it says (1/4, 1/2, 1/8, 1/8). Three of four true tokens are `a`, and the one after `b` is.
"""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

from tests.known_answers.case import Case
from tests.known_answers.measured import Measured
from tests.known_answers.running import measured

TEXT = "aaab" * 256
SCENARIO: dict[str, Any] = {
    "engines": [
        {"engine": "known-scores", "quantization": ["q8_0"], "variants": {"whole": {}, "likeliest two": {"top": 2}}}
    ],
    "load": [{"kind": "single_user", "requests": 1}],
    "quality": {
        "text": "text.txt",
        "tokens": len(TEXT),
        "chunk": 16,
        "reference": {"quantization": "f16", "variant": "whole"},
    },
}
WHOLE, TWO = "whole", "likeliest two"
CASES = tuple(
    Case(metric, "quality", follows, truth, cell=cell, within=within)
    for metric, truth, follows, cell, within in (
        ("kl_mean", 5 / 32 * log(2), "(3/8 + 1/4) / 4 · ln 2", WHOLE, 1e-6),
        ("kl_median", log(2) / 8, "1/4 ln 2 - 1/8 ln 2, after `a`", WHOLE, 1e-6),
        ("kl_p99", log(2) / 4, "1/2 ln 2 - 1/4 ln 2, after `b`: every fourth", WHOLE, 1e-6),
        ("kl_max", log(2) / 4, "1/2 ln 2 - 1/4 ln 2, after `b`", WHOLE, 1e-6),
        ("kl_bound", (3 * log(1.5) + log(2) / 2) / 16, "the rest as one: (3/4 ln 3/2 + 1/8 ln 2) / 4", TWO, 2e-5),
        ("top1_agreement", 0.75, "it prefers another token after `b` alone", WHOLE, 1e-6),
        ("ppl_ratio", 2**0.5, "2^((2 + 1 + 1 + 3) / 4 - (1 + 1 + 1 + 2) / 4)", WHOLE, 1e-6),
        ("ppl", 2**1.75, "2^((2 + 1 + 1 + 3) / 4)", WHOLE, 1e-6),
    )
)


def run(folder: Path) -> Measured:
    """The run."""
    (folder / "text.txt").write_text(TEXT)
    return measured(folder, SCENARIO)

"""Who counted the tokens of a trial, and whether those who counted the same replies agree.

The total that metrics use is a reply's best source (`records.TokenSource`). Beside it stand the counts of its chunks,
and of a few replies the tokens of their text by the model's own tokenizer. Sources: docs/method.md, "Counting tokens".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import Flags, Floats, due_order
from harness.analysis.reading import Reading
from harness.records import Phase, Status, TokenSource
from harness.store.categories import counts_of, one_of
from harness.store.manifest import TrialEntry

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE_TOKENS = 40  # the longest template of a chat in common use puts some 36 around a prompt
_COLUMNS = [
    "class",
    "token_source",
    "output_tokens",
    "retokenized_tokens",
    "reasoning_tokens",
    "requested_output_tokens",
    "prompt_tokens",
    "requested_prompt_tokens",
    "turn",
]


def tokens_of(trial: TrialEntry, reading: Reading) -> dict[str, Any]:
    """What is known of the counting; JSON-able. Over the measured requests that succeeded:

    counted_by: requests by source ("usage", "engine", "tokenizer", "chunks"; "nobody").
    chunks, text: how far the counts of all chunks, and of the re-tokenised text, are from the total that somebody else
    counted: replies, median_share, worst_share (largest by amount, with its sign); None where nothing can be compared.
    length_fidelity: of the replies whose length the plan fixed (`exact`): replies, share of those as long as asked, to
    a token; None where it fixed none.
    prompts: replies whose prompt the server counted, median_share and worst_share off the plan's length, and `beyond`,
    the median share of what a chat template cannot explain; None where nothing can be compared. Later turns carry the
    conversation before them, and are left out.
    """
    records = reading.frame
    chosen = one_of(records["phase"], [Phase.MEASURE]) & one_of(records["status"], [Status.OK])
    whole = records[_COLUMNS] if chosen.all() else records.loc[chosen, _COLUMNS]
    sources = counts_of(whole["token_source"])
    return {
        "counted_by": sources | ({"nobody": silent} if (silent := len(whole) - sum(sources.values())) else {}),
        "chunks": _by_chunks(reading),
        "text": _by_text(whole),
        "length_fidelity": _fidelity(whole, trial.pinned_outputs),
        "prompts": _prompts(whole),
    }


def _by_chunks(reading: Reading) -> dict[str, Any] | None:
    """Only where somebody else counted the total: chunks are not compared with themselves."""
    rows = reading.columns.measured
    order = due_order(reading.frame)[reading.columns.measured_rows]
    others = one_of(reading.frame["token_source"], [TokenSource.USAGE, TokenSource.TOKENIZER])
    both = rows.ok & others[order]
    counted, stated, shown = rows.each.counted, rows.counts["output_tokens"], rows.shown_tokens
    stated = np.where(np.abs(counted - shown) < np.abs(counted - stated), shown, stated)
    return _differences(counted[both], stated[both])


def _by_text(whole: pd.DataFrame) -> dict[str, Any] | None:
    """Tokens without a text of their own are no difference: the one that ends a reply, and reasoning that is hidden."""
    some = whole[whole["retokenized_tokens"].notna().to_numpy(dtype=np.bool_)]
    counted, stated = _numbers(some, "retokenized_tokens"), _numbers(some, "output_tokens")
    hidden = np.nan_to_num(_numbers(some, "reasoning_tokens")) > 0
    counted = np.where(counted == stated - 1, stated, counted)
    return _differences(counted[~hidden], stated[~hidden])


def _prompts(whole: pd.DataFrame) -> dict[str, Any] | None:
    """Where our tokenizer counted the reply, its prompt is the plan's; a count of none is no count."""
    counted_here = one_of(whole["token_source"], [TokenSource.TOKENIZER]) | (_numbers(whole, "turn") > 0)
    counted, asked = (_numbers(whole, name)[~counted_here] for name in ("prompt_tokens", "requested_prompt_tokens"))
    both: Flags = (counted > 0) & (asked > 0)
    told = _differences(counted[both], asked[both])
    if told is None:
        return None
    more = (counted - asked)[both]
    return told | {"beyond": float(np.median((more - np.clip(more, -1, TEMPLATE_TOKENS)) / asked[both]))}


def _differences(counted: Floats, stated: Floats) -> dict[str, Any] | None:
    both: Flags = np.isfinite(counted) & (stated > 0)
    if not both.any():
        return None
    off = counted[both] / stated[both] - 1
    worst = float(off[np.argmax(np.abs(off))])
    return {"replies": int(both.sum()), "median_share": float(np.median(off)), "worst_share": worst}


def _fidelity(whole: pd.DataFrame, pinned: Sequence[str]) -> dict[str, Any] | None:
    own = whole[whole["class"].isin(list(pinned)).to_numpy(dtype=np.bool_)]
    asked, got = _numbers(own, "requested_output_tokens"), _numbers(own, "output_tokens")
    known = np.isfinite(asked) & np.isfinite(got)
    if not known.any():
        return None
    alike = np.abs(got - asked)[known] <= 1  # some servers do not count the last token
    return {"replies": int(known.sum()), "share": float(alike.mean())}


def _numbers(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)

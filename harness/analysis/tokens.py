"""Sources of a trial's token counts, and their agreement on the same replies.

The total that metrics use is a reply's best source (`records.TokenSource`). Other counts are those of its chunks and,
for a few replies, the tokens of the text by the model's own tokenizer. Sources: docs/method.md, "Counting tokens".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import due_order, numbers
from harness.analysis.reading import Reading
from harness.analysis.stats import Flags, Floats
from harness.records import Phase, Status, TokenSource
from harness.store.categories import counts_of, one_of
from harness.store.manifest import TrialEntry

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE_TOKENS = 40  # the longest chat template in common use puts some 36 around a prompt
_COLUMNS = [
    *("class", "turn", "token_source", "output_tokens", "retokenized_tokens", "reasoning_tokens"),
    *("requested_output_tokens", "prompt_tokens", "requested_prompt_tokens"),
]


def tokens_of(trial: TrialEntry, reading: Reading) -> dict[str, Any]:
    """Return facts about token counts of the successful measured requests, JSON-able; a part is None without data.

    counted_by: requests by source ("usage", "engine", "tokenizer", "chunks"; "nobody").
    chunks, text: relative difference of the chunks' counts, and of the re-tokenised text, from the total of another
    source: replies, median_share, worst_share (largest by amount, signed).
    length_fidelity: of the replies with a length fixed by the schedule (`exact`): replies, share of those as long as
    requested, to a token.
    prompts: replies with a prompt counted by the server, median_share and worst_share off the schedule's length, and
    `beyond`, the median share that a chat template cannot explain. Later turns carry the conversation before them, and
    are left out.
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
    """Compare chunks with totals of another source; they are not compared with themselves."""
    rows = reading.columns.measured
    order = due_order(reading.frame)[reading.columns.measured_rows]
    others = one_of(reading.frame["token_source"], [TokenSource.USAGE, TokenSource.TOKENIZER])
    both = rows.ok & others[order]
    counted, stated, shown = rows.each.counted, rows.counts["output_tokens"], rows.shown_tokens
    stated = np.where(np.abs(counted - shown) < np.abs(counted - stated), shown, stated)
    return _differences(counted[both], stated[both])


def _by_text(whole: pd.DataFrame) -> dict[str, Any] | None:
    """Compare texts. Tokens without text are no difference: the one that ends a reply, and hidden reasoning."""
    some = whole[whole["retokenized_tokens"].notna().to_numpy(dtype=np.bool_)]
    counted, stated = numbers(some, "retokenized_tokens"), numbers(some, "output_tokens")
    hidden = np.nan_to_num(numbers(some, "reasoning_tokens")) > 0
    counted = np.where(counted == stated - 1, stated, counted)
    return _differences(counted[~hidden], stated[~hidden])


def _prompts(whole: pd.DataFrame) -> dict[str, Any] | None:
    """Compare prompts, but not if our tokenizer counted the reply: then the prompt's count is the schedule's.

    A count of 0 is no count.
    """
    counted_here = one_of(whole["token_source"], [TokenSource.TOKENIZER]) | (numbers(whole, "turn") > 0)
    counted, requested = (numbers(whole, name)[~counted_here] for name in ("prompt_tokens", "requested_prompt_tokens"))
    both: Flags = (counted > 0) & (requested > 0)
    found = _differences(counted[both], requested[both])
    if found is None:
        return None
    more = (counted - requested)[both]
    return found | {"beyond": float(np.median((more - np.clip(more, -1, TEMPLATE_TOKENS)) / requested[both]))}


def _differences(counted: Floats, stated: Floats) -> dict[str, Any] | None:
    both: Flags = np.isfinite(counted) & (stated > 0)
    if not both.any():
        return None
    off = counted[both] / stated[both] - 1
    worst = float(off[np.argmax(np.abs(off))])
    return {"replies": int(both.sum()), "median_share": float(np.median(off)), "worst_share": worst}


def _fidelity(whole: pd.DataFrame, pinned: Sequence[str]) -> dict[str, Any] | None:
    own = whole[whole["class"].isin(list(pinned)).to_numpy(dtype=np.bool_)]
    off = np.abs(numbers(own, "output_tokens") - numbers(own, "requested_output_tokens"))
    known = np.isfinite(off)
    if not known.any():
        return None
    return {"replies": int(known.sum()), "share": float((off[known] <= 1).mean())}  # some do not count the last token

"""Judge token counts, lengths of replies, prompts, and the server's counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from harness.analysis.columns import Columns
from harness.analysis.reading import Reading
from harness.analysis.samples.server_counts import IN_FLIGHT
from harness.analysis.tokens import TEMPLATE_TOKENS
from harness.metrics import METRICS
from harness.records import TokenSource
from harness.store.manifest import TrialEntry
from harness.verdict import thresholds
from harness.verdict.reason import Level, Reason

_OF_TOKENS = tuple(name for name, metric in METRICS.items() if metric.counts_tokens)
_OF_LENGTH = ("output_tokens_per_s", "e2e_ms", "completed_rps", "goodput_rps")
_OF_PROMPTS = ("ttft_ms", "ttfo_ms", "input_tokens_per_s")
_WHICH_IS_RIGHT = "Find out which count is right before you use tokens/s or TPOT."


def reuse_reasons(trial: TrialEntry, columns: Columns) -> Iterator[Reason]:
    """Yield whether the engine's cache held more of the measured prompts than the plan gave it to share."""
    share = _cached_share(columns.measured)
    if trial.shares_prompts is False:
        sentence = (
            f"The server took {share:.0%} of the prompt tokens from its cache, though no two prompts begin alike."
        )
        advice = "Restart it, or empty its cache, and measure again."
        yield from thresholds.CACHED_UNPLANNED.reasons(share, sentence, advice, _OF_PROMPTS)
    asked = trial.prompts_asked.values()
    if not asked or share <= thresholds.CACHED_UNPLANNED.warn:
        return
    requests, again = sum(one.requests for one in asked), sum(one.again for one in asked)
    if again:
        sentence = f"{again} of {requests} prompts from the file had been sent to this engine before."
        advice = "A prefix cache answers them sooner: give a file with more prompts than the loads send together."
        yield Reason("prompts_again", Level.VALID, sentence, advice)
    elif trial.salt is not None and not trial.cache_reset:
        sentence = "The server ran before this run, and its cache may hold the prompts of the file."
        advice = "Restart the server, or use generated prompts, which differ by run."
        yield Reason("prompts_known", Level.VALID, sentence, advice)


def _cached_share(rows: Columns) -> float:
    """The share of the prompts' tokens that came from a cache, but for a template's; NaN where nobody said."""
    prompt, cached = rows.counts["prompt_tokens"], rows.counts["cached_tokens"]
    known = ~np.isnan(prompt) & ~np.isnan(cached)
    tokens = float(prompt[known].sum())
    return float(np.maximum(cached[known] - TEMPLATE_TOKENS, 0).sum()) / tokens if tokens else float("nan")


def books_reasons(facts: Mapping[str, Any]) -> Iterator[Reason]:
    """Yield the counts of load generator and server that differ, the largest only (D10)."""
    found: list[Reason] = []
    for entry in facts.get("books") or ():
        what, client, server = entry["what"], entry["client"], entry["server"]
        threshold = thresholds.BOOKS_IN_FLIGHT if what == IN_FLIGHT else thresholds.BOOKS
        digits = 1 if what == IN_FLIGHT else 0
        most = entry["client_most"]
        counted = f"{client:,.{digits}f}" + ("" if client == most else f" to {most:,.{digits}f}")
        sentence = f"Counts disagree: the server counted {server:,.{digits}f} {what}, the load generator {counted}."
        advice = "Let nothing else use the server. Look for retries on the way, lost requests, and servers behind it "
        advice += "whose pages `metrics_urls` does not name."
        found += threshold.reasons(abs(entry["difference_share"]), sentence, advice, (*_OF_TOKENS, "completed_rps"))
    yield from sorted(found, key=lambda reason: -reason.size)[:1]


def token_reasons(trial: TrialEntry, reading: Reading, tokens: Mapping[str, Any]) -> Iterator[Reason]:
    """Yield the reasons of a trial's token counts. `tokens`: see `tokens_of`."""
    yield from _counts(tokens)
    yield from _impossible(reading.columns.measured)
    yield from _lengths(tokens["length_fidelity"], reading.columns.measured)
    yield from _prompt_reasons(trial, tokens.get("prompts"))


def _counts(tokens: Mapping[str, Any]) -> Iterator[Reason]:
    """Yield how counts by chunk and by text differ from the stated total (D7)."""
    chunks, text = tokens["chunks"], tokens["text"]
    if chunks is not None:
        off = chunks["median_share"]
        sentence = f"Token counts disagree: counted by chunk, replies have {off:+.1%} tokens (median)."
        yield from thresholds.TOKEN_DISAGREEMENT.reasons(abs(off), sentence, _WHICH_IS_RIGHT, _OF_TOKENS)
    if text is not None and text["replies"] >= thresholds.LEAST_RECOUNTED.value:
        off = text["median_share"]
        sentence = f"Token counts disagree: the texts of {text['replies']} replies have {off:+.1%} tokens (median) by "
        sentence += "the model's tokenizer."
        advice = f"{_WHICH_IS_RIGHT} Is it the model that is served?"
        yield from thresholds.TOKENS_BY_TEXT.reasons(abs(off), sentence, advice, _OF_TOKENS)
    if tokens["counted_by"].get(TokenSource.CHUNKS):
        sentence = "The engine does not count tokens: each chunk counts as one token."
        yield Reason("token_counts", Level.VALID, sentence, "Switch on usage in the server's replies.", _OF_TOKENS)


def _impossible(rows: Columns) -> Iterator[Reason]:
    """Yield the reason of totals that cannot be: more than requested at most, or fewer than chunks came (D7)."""
    tokens, most, chunks = rows.counts["output_tokens"], rows.counts["requested_output_tokens"], rows.each.sizes
    known = rows.ok & np.isfinite(tokens)
    if not known.any():
        return
    with np.errstate(invalid="ignore"):
        over = float((tokens > most + 1)[known].mean())
        fewer = float((tokens < thresholds.FEWER_THAN_CHUNKS.value * chunks)[known].mean())
    sentence = f"Token counts cannot be true: {over:.0%} of the replies have more tokens than requested at most."
    if fewer > over:
        sentence = f"Token counts cannot be true: {fewer:.0%} of the replies have fewer tokens than chunks."
    yield from thresholds.IMPOSSIBLE_TOKENS.reasons(max(over, fewer), sentence, _WHICH_IS_RIGHT, _OF_TOKENS)


def _lengths(fidelity: Mapping[str, Any] | None, rows: Columns) -> Iterator[Reason]:
    """Yield the reason of replies that have not the planned length (D8)."""
    asked, got = rows.counts["requested_output_tokens"], rows.counts["output_tokens"]
    with np.errstate(invalid="ignore"):
        short = rows.ok & rows.cut_by_length & (got < asked - 1)  # some servers do not count the last token
    cut = float(short.mean()) if len(rows) else 0.0
    missed = 0.0 if fidelity is None else 1 - fidelity["share"]
    if missed >= cut:
        sentence = f"{missed:.0%} of the replies with a fixed length (`exact`) have another length."
        advice = "Compare with no run whose replies had other lengths, or use an engine that can hold a length."
    else:
        sentence = f"{int(short.sum())} replies ended by `length` before the requested tokens"
        sentence += f" ({np.median(got[short]):.0f} of {np.median(asked[short]):.0f} at the median)."
        advice = "Give the engine a longer context, or shorten prompts or replies."
    yield from thresholds.LENGTHS.reasons(max(missed, cut), sentence, advice, _OF_LENGTH)


def _prompt_reasons(trial: TrialEntry, prompts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """Yield the reason of prompts that the server counts otherwise: one that cuts them off looks fast (D9)."""
    if prompts is None:
        return
    estimated = "estimated" in trial.prompt_length_source.values()
    if estimated and abs(prompts["beyond"]) <= thresholds.PROMPT_TOKENS_ESTIMATED.value:
        return
    off = prompts["median_share"]
    sentence = f"The server counts {abs(off):.0%} {'more' if off > 0 else 'fewer'} tokens in the prompts than planned."
    advice = "Is it another model than `model`? Does it cut prompts off? Then give it a longer context."
    if estimated:
        advice = "Name the served `model`: without it, the plan takes four characters for a token."
    yield from thresholds.PROMPT_TOKENS.reasons(abs(prompts["beyond"]), sentence, advice, _OF_PROMPTS)

"""Judge token counts: by chunk, by tokenizer, by the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from harness.analysis.columns import Columns
from harness.analysis.reading import Reading
from harness.analysis.samples.server_counts import IN_FLIGHT
from harness.analysis.tokens import TEMPLATE_TOKENS, tokens_of
from harness.records import TokenSource
from harness.store.manifest import TrialEntry
from harness.verdict import thresholds
from harness.verdict.reason import Level, Reason

_WHICH_IS_RIGHT = "Find out which count is right before using tokens/s or tpot."


def reuse_reasons(trial: TrialEntry, columns: Columns) -> Iterator[Reason]:
    """Whether the engine's cache held more of the measured prompts than the plan gave it to share."""
    share = _cached_share(columns.measured)
    if trial.shares_prompts is False:
        sentence = f"{share:.0%} of the prompt tokens came from the server's cache, though no two prompts begin alike."
        advice = "Restart it, or empty its cache, and measure again."
        yield from thresholds.CACHED_UNPLANNED.reasons(share, sentence, advice)
    asked = trial.prompts_asked.values()
    if not asked or share <= thresholds.CACHED_UNPLANNED.warn:
        return
    requests, again = sum(one.requests for one in asked), sum(one.again for one in asked)
    level = thresholds.PROMPTS_AGAIN.level(again / requests if requests else 0.0)
    if level is not Level.VALID:
        sentence = f"{again} of {requests} prompts from the file had been sent to this engine before."
        advice = "A prefix cache answers them sooner: give a file with more prompts than the loads send together."
        yield Reason("prompts_again", level, sentence, advice)
    elif trial.salt is not None and not trial.cache_reset:
        sentence = "The server ran before this run, and may know the prompts of the file."
        advice = "A prefix cache answers them sooner: restart the server, or use made-up prompts, which differ by run."
        yield Reason("prompts_known", Level.WARN, sentence, advice)


def _cached_share(rows: Columns) -> float:
    """The share of the prompts' tokens that came from a cache, but for a template's; NaN where nobody said."""
    prompt, cached = rows.counts["prompt_tokens"], rows.counts["cached_tokens"]
    known = ~np.isnan(prompt) & ~np.isnan(cached)
    tokens = float(prompt[known].sum())
    return float(np.maximum(cached[known] - TEMPLATE_TOKENS, 0).sum()) / tokens if tokens else float("nan")


def books_reasons(facts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """What does not balance, by the facts of a trial."""
    for entry in (facts or {}).get("books") or ():
        what, client, server = entry["what"], entry["client"], entry["server"]
        threshold = thresholds.BOOKS_IN_FLIGHT if what == IN_FLIGHT else thresholds.BOOKS
        digits = 1 if what == IN_FLIGHT else 0
        most = entry["client_most"]
        counted = f"{client:,.{digits}f}" + ("" if client == most else f" to {most:,.{digits}f}")
        when = "on average" if what == IN_FLIGHT else "during the trial"
        sentence = f"The server counted {server:,.{digits}f} {what} {when}, the client {counted}."
        advice = "Let nothing else use the server; look for retries on the way, for requests that were lost, and for "
        advice += "servers behind it whose pages `metrics_urls` does not name."
        yield from threshold.reasons(abs(entry["difference_share"]), sentence, advice)


def token_reasons(trial: TrialEntry, reading: Reading, facts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """What of it speaks against the numbers. facts: of the trial, where they are known already."""
    tokens = (facts or {}).get("tokens") or tokens_of(trial, reading)
    chunks, text, fidelity = tokens["chunks"], tokens["text"], tokens["length_fidelity"]
    if chunks is not None:
        off = chunks["median_share"]
        sentence = f"Tokens counted chunk by chunk differ from the engine's total by {off:+.1%} (median)."
        yield from thresholds.TOKEN_DISAGREEMENT.reasons(abs(off), sentence, _WHICH_IS_RIGHT)
    if text is not None and text["replies"] >= thresholds.LEAST_RECOUNTED.value:
        off = text["median_share"]
        sentence = f"The texts of {text['replies']} replies have {off:+.1%} tokens (median), by the "
        sentence += "model's own tokenizer, against the total that was stated."
        advice = f"{_WHICH_IS_RIGHT} Is it the model that is served?"
        yield from thresholds.TOKENS_BY_TEXT.reasons(abs(off), sentence, advice)
    if tokens["counted_by"].get(TokenSource.CHUNKS):
        sentence = "The engine does not count tokens: each chunk was taken for one."
        yield Reason("tokens_are_chunks", Level.WARN, sentence, "Switch on usage in the server's replies.")
    if fidelity is not None:
        sentence = f"Only {fidelity['share']:.1%} of the replies whose length the plan fixed are as long as asked."
        advice = "Compare with no run whose replies had other lengths; use an engine that can hold a length (`exact`)."
        yield from thresholds.LENGTH_FIDELITY.reasons(fidelity["share"], sentence, advice)
    yield from _prompt_reasons(trial, tokens.get("prompts"))


def _prompt_reasons(trial: TrialEntry, prompts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """A server that cuts prompts off looks fast; other prompts than those planned are another load."""
    if prompts is None or thresholds.PROMPT_TOKENS.level(abs(prompts["beyond"])) is Level.VALID:
        return
    estimated = "estimated" in trial.prompt_length_source.values()
    if estimated and abs(prompts["beyond"]) <= thresholds.PROMPT_TOKENS_ESTIMATED.value:
        return
    sentence = f"The server counts {prompts['median_share']:+.1%} tokens (median) in the prompts, against the plan."
    advice = "Is it another model than `model`? Does it cut prompts off? Then give it a longer context."
    if estimated:
        advice = "Name the `model` that is served: without it the plan takes four characters for a token."
    yield Reason("prompt_tokens", Level.WARN, sentence, advice)

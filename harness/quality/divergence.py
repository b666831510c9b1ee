"""Divergence of a model's token distributions from a reference's at each position.

Logarithms are natural, divergences in nats. Log-probabilities arrive as float32 and are normalised in float64, so that
rounding makes no divergence negative. A distribution may be known whole, [rows, vocabulary], or for its likeliest
tokens only. These give a lower bound of the divergence.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]

BLOCK_ELEMENTS = 2**22
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Distributions:
    """Log-probabilities of one model at several positions; NaN if unknown."""

    logprobs: NDArray[np.float32]  # [rows, vocabulary], or [rows, k] with `tokens`
    tokens: Ids | None  # [rows, k], the token of each element
    true: NDArray[np.float32]  # [rows], of the token in the text

    @property
    def whole(self) -> bool:
        """True if the whole vocabulary is known."""
        return self.tokens is None

    def rows(self, part: slice) -> Distributions:
        """Return some of the positions."""
        tokens = None if self.tokens is None else self.tokens[part]
        return Distributions(self.logprobs[part], tokens, self.true[part])


@dataclass(frozen=True, slots=True)
class Positions:
    """Comparison at each position, all [rows]."""

    nll_reference: Floats  # -ln p of the true token
    nll: Floats
    kl: Floats  # KL(reference || candidate); NaN if only the bound is known
    kl_lower_bound: Floats  # NaN if `kl` is known
    reference_top1: Ids  # likeliest token, the lowest id of equal ones
    top1: Ids
    gap: Floats  # nats by which the candidate prefers its top1 to the reference's; 0 if equal, NaN if unknown
    delta_p: Floats  # probability of the true token minus the reference's

    @property
    def top1_same(self) -> NDArray[np.bool_]:
        """True where both have the same likeliest token; False where neither reports any."""
        same: NDArray[np.bool_] = (self.reference_top1 == self.top1) & (self.top1 >= 0)
        return same


def compare(reference: Distributions, candidate: Distributions, true: Ids) -> Positions:
    """Compare a candidate with the reference at the same positions. true: [rows], the tokens of the text."""
    rows = len(true)
    columns = max(reference.logprobs.shape[1], candidate.logprobs.shape[1])
    step = max(1, BLOCK_ELEMENTS // columns)
    blocks = [slice(start, start + step) for start in range(0, rows, step)] or [slice(0, 0)]
    return joined([_compared(reference.rows(block), candidate.rows(block), true[block]) for block in blocks])


def joined(parts: list[Positions]) -> Positions:
    """Concatenate comparisons in order."""
    return Positions(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Positions)})


def _compared(reference: Distributions, candidate: Distributions, true: Ids) -> Positions:
    kl = kl_lower_bound = np.full(len(true), np.nan)
    if reference.whole and candidate.whole:
        width = min(reference.logprobs.shape[1], candidate.logprobs.shape[1])  # a vocabulary may be padded
        p, q = normalised(reference.logprobs[:, :width]), normalised(candidate.logprobs[:, :width])
        each = np.arange(len(true))
        true_p, true_q = p[each, true], q[each, true]
        reference_top1, top1 = p.argmax(axis=1).astype(np.int32), q.argmax(axis=1).astype(np.int32)
        own, its = q[each, top1], q[each, reference_top1]
        kl = divergence(p, q)
    else:
        tokens = _common(reference, candidate, true)
        true_p, true_q = _true(reference, true), _true(candidate, true)
        reference_top1, top1 = likeliest(reference), likeliest(candidate)
        own, its = looked_up(candidate, np.stack([top1, reference_top1], axis=1), true).T
        kl_lower_bound = lower_bound(looked_up(reference, tokens, true), looked_up(candidate, tokens, true))
    with np.errstate(invalid="ignore"):
        gap = np.where(reference_top1 == top1, 0.0, own - its)
    delta_p = np.exp(true_q) - np.exp(true_p)
    return Positions(-true_p, -true_q, kl, kl_lower_bound, reference_top1, top1, gap, delta_p)


def normalised(logprobs: NDArray[Any]) -> Floats:
    """Return log-probabilities in float64, each row normalised to sum 1; constants added to a row vanish."""
    raised = np.asarray(logprobs, dtype=np.float64)
    if not raised.size:
        return raised
    shifted = raised - raised.max(axis=1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def divergence(p: Floats, q: Floats) -> Floats:
    """Return KL(p || q) of each row of log-probabilities: sum of p (ln p - ln q) over p > 0.

    It is infinite where q is 0 and p is not. Values below 0 (rounding) become 0.
    """
    with np.errstate(invalid="ignore"):
        terms = np.exp(p) * (p - q)
    terms[np.isneginf(p)] = 0.0
    found: Floats = np.maximum(terms.sum(axis=1), 0.0)
    return found


def lower_bound(p: Floats, q: Floats) -> Floats:
    """Return a lower bound of KL(p || q) by the data-processing inequality: all tokens not known of both are merged.

    The rest of q is taken 1e-6 larger (rounding to float32), which only lowers the bound.

    Args:
        p: [rows, k] log-probabilities; NaN if unknown.
        q: The same tokens of the other distribution.
    """
    known = ~(np.isnan(p) | np.isnan(q))
    shares_p, shares_q = np.where(known, np.exp(p), 0.0), np.where(known, np.exp(q), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where(known & (shares_p > 0), shares_p * (p - q), 0.0)
        rest_p = np.clip(1.0 - shares_p.sum(axis=1), 0.0, 1.0)
        rest_q = np.clip(1.0 - shares_q.sum(axis=1) + ROUNDING, ROUNDING, 1.0)
        rest = np.where(rest_p > 0, rest_p * np.log(rest_p / rest_q), 0.0)
    found: Floats = np.maximum(terms.sum(axis=1) + rest, 0.0)
    return found


def _common(reference: Distributions, candidate: Distributions, true: Ids) -> Ids:
    """Return [rows, k] the tokens to compare (known ones and the true one), each once in a row; -1 for none."""
    both = (reference, candidate)
    known = [np.where(np.isnan(one.logprobs), -1, one.tokens) for one in both if one.tokens is not None]
    every = np.sort(np.concatenate([*known, true[:, None]], axis=1), axis=1)
    again = np.zeros(every.shape, dtype=bool)
    again[:, 1:] = every[:, 1:] == every[:, :-1]
    found: Ids = np.where(again, -1, every).astype(np.int32)
    return found


def looked_up(one: Distributions, tokens: Ids, true: Ids) -> Floats:
    """Return [rows, k] a model's log-probabilities of these tokens; NaN if unknown."""
    each = np.arange(len(tokens))[:, None]
    if one.tokens is None:
        found = normalised(one.logprobs)[each, np.clip(tokens, 0, one.logprobs.shape[1] - 1)]
        return np.where((tokens < 0) | (tokens >= one.logprobs.shape[1]), np.nan, found)
    found = _found_by_id(one.tokens, one.logprobs, tokens)
    of_true = np.where(tokens == true[:, None], one.true.astype(np.float64)[:, None], np.nan)
    found = np.where(np.isnan(found), of_true, found)
    return np.where(tokens < 0, np.nan, found)


def _found_by_id(ids: Ids, values: NDArray[np.float32], wanted: Ids) -> Floats:
    """Return [rows, n] the value of each wanted id in its row; NaN if the row lacks the id."""
    rows = np.arange(len(ids), dtype=np.int64)[:, None] << 32
    keys, sought = (rows + ids).ravel(), (rows + wanted).ravel()
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys, sought, sorter=order), len(keys) - 1)
    found: Floats = np.where(keys[order[at]] == sought, values.ravel()[order[at]].astype(np.float64), np.nan)
    return found.reshape(wanted.shape)


def likeliest(one: Distributions) -> Ids:
    """Return [rows] the likeliest token, the lowest id of equal ones; -1 if none is known."""
    if one.tokens is None:
        best_of_all: Ids = one.logprobs.argmax(axis=1).astype(np.int32)
        return best_of_all
    known = np.where(np.isnan(one.logprobs), -np.inf, one.logprobs)
    best = (known == known.max(axis=1, keepdims=True)) & ~np.isneginf(known)
    lowest = np.where(best, one.tokens, np.iinfo(np.int32).max).min(axis=1)
    found: Ids = np.where(best.any(axis=1), lowest, -1).astype(np.int32)
    return found


def _true(one: Distributions, true: Ids) -> Floats:
    if one.tokens is None:
        return normalised(one.logprobs)[np.arange(len(true)), true]
    return looked_up(one, true[:, None], true)[:, 0]

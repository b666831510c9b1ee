"""How far a model's distributions are from a reference's, position by position: pure functions of log-probabilities.

Logarithms are natural, divergences in nats. Log-probabilities come in as float32 and are normalised again in float64,
so that no rounding of theirs makes a divergence negative. A distribution may be known in whole, [rows, vocabulary],
or only for its likeliest tokens; of those only a lower bound on the divergence can be told.
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
    """What one model says of several positions.

    logprobs: [rows, vocabulary]; or [rows, k] with `tokens`, what each column is about, NaN where less is known.
    true: [rows], of the tokens that stand there; NaN where unknown.
    """

    logprobs: NDArray[np.float32]
    tokens: Ids | None
    true: NDArray[np.float32]

    @property
    def whole(self) -> bool:
        """Whether the whole vocabulary is known."""
        return self.tokens is None

    def rows(self, part: slice) -> Distributions:
        """Some of the positions."""
        tokens = None if self.tokens is None else self.tokens[part]
        return Distributions(self.logprobs[part], tokens, self.true[part])


@dataclass(frozen=True, slots=True)
class Positions:
    """What was found at each position, all [rows].

    nll_reference, nll: minus the log-probability of the true token.   kl: KL(reference || candidate), NaN where only
    the bound is known.   kl_lower_bound: what it is at least; NaN where `kl` is known.
    reference_top1, top1: the likeliest tokens, of equal ones the lowest id.   gap: by how much the candidate prefers
    its own likeliest token to the reference's (nats; 0 where they are the same, NaN where unknown).
    delta_p: the true token's probability minus the reference's.
    """

    nll_reference: Floats
    nll: Floats
    kl: Floats
    kl_lower_bound: Floats
    reference_top1: Ids
    top1: Ids
    gap: Floats
    delta_p: Floats

    @property
    def top1_same(self) -> NDArray[np.bool_]:
        """Where both find the same token likeliest; not where neither tells of any."""
        same: NDArray[np.bool_] = (self.reference_top1 == self.top1) & (self.top1 >= 0)
        return same


def compare(reference: Distributions, candidate: Distributions, true: Ids) -> Positions:
    """The candidate against the reference on the same positions; true: [rows], the tokens that stand there."""
    rows = len(true)
    columns = max(reference.logprobs.shape[1], candidate.logprobs.shape[1])
    step = max(1, BLOCK_ELEMENTS // columns)
    blocks = [slice(start, start + step) for start in range(0, rows, step)] or [slice(0, 0)]
    function = _whole if reference.whole and candidate.whole else _in_part
    return joined([function(reference.rows(block), candidate.rows(block), true[block]) for block in blocks])


def joined(parts: list[Positions]) -> Positions:
    """Several as one, in order."""
    names = [field.name for field in fields(Positions)]
    return Positions(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _whole(reference: Distributions, candidate: Distributions, true: Ids) -> Positions:
    width = min(reference.logprobs.shape[1], candidate.logprobs.shape[1])  # one may pad its vocabulary
    p, q = normalised(reference.logprobs[:, :width]), normalised(candidate.logprobs[:, :width])
    each = np.arange(len(true))
    true_p, true_q = p[each, true], q[each, true]
    reference_top1, top1 = p.argmax(axis=1).astype(np.int32), q.argmax(axis=1).astype(np.int32)
    with np.errstate(invalid="ignore"):
        gap = np.where(reference_top1 == top1, 0.0, q[each, top1] - q[each, reference_top1])
    return Positions(
        nll_reference=-true_p,
        nll=-true_q,
        kl=divergence(p, q),
        kl_lower_bound=np.full(len(true), np.nan),
        reference_top1=reference_top1,
        top1=top1,
        gap=gap,
        delta_p=np.exp(true_q) - np.exp(true_p),
    )


def normalised(logprobs: NDArray[Any]) -> Floats:
    """Log-probabilities of which each row sums to one, in float64; any constant added to a row is removed."""
    raised = np.asarray(logprobs, dtype=np.float64)
    if not raised.size:
        return raised
    shifted = raised - raised.max(axis=1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def divergence(p: Floats, q: Floats) -> Floats:
    """KL(p || q) of each row of log-probabilities: sum of p (ln p - ln q), where p is 0 nothing; infinite where q
    rules out what p does not. What rounding leaves below 0 is 0.
    """
    with np.errstate(invalid="ignore"):
        terms = np.exp(p) * (p - q)
    terms[np.isneginf(p)] = 0.0
    found: Floats = np.maximum(terms.sum(axis=1), 0.0)
    return found


def _in_part(reference: Distributions, candidate: Distributions, true: Ids) -> Positions:
    """Where one of the two, or both, tell only of their likeliest tokens."""
    tokens = _common(reference, candidate, true)
    p, q = looked_up(reference, tokens, true), looked_up(candidate, tokens, true)
    reference_top1, top1 = likeliest(reference), likeliest(candidate)
    own = looked_up(candidate, np.stack([top1, reference_top1], axis=1), true)
    true_p, true_q = _true(reference, true), _true(candidate, true)
    return Positions(
        nll_reference=-true_p,
        nll=-true_q,
        kl=np.full(len(true), np.nan),
        kl_lower_bound=lower_bound(p, q),
        reference_top1=reference_top1,
        top1=top1,
        gap=np.where(reference_top1 == top1, 0.0, own[:, 0] - own[:, 1]),
        delta_p=np.exp(true_q) - np.exp(true_p),
    )


def lower_bound(p: Floats, q: Floats) -> Floats:
    """What KL(p || q) is at least, by the data-processing inequality: the divergence after all tokens that are not
    known of both are put into one bucket.

    p, q: [rows, k] log-probabilities of the same tokens; columns where either is NaN count as not known. By rounding to
    float32 the rest of q may be 1e-6 larger than it seems; it is taken so, which only lowers the bound.
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
    """[rows, k] tokens to compare, each once a row, -1 for none: those told of, and the true one."""
    known = [
        np.where(np.isnan(one.logprobs), -1, one.tokens) for one in (reference, candidate) if one.tokens is not None
    ]
    every = np.sort(np.concatenate([*known, true[:, None]], axis=1), axis=1)
    again = np.zeros(every.shape, dtype=bool)
    again[:, 1:] = every[:, 1:] == every[:, :-1]
    found: Ids = np.where(again, -1, every).astype(np.int32)
    return found


def looked_up(one: Distributions, tokens: Ids, true: Ids) -> Floats:
    """[rows, k] what a model says of these tokens, NaN where it does not tell."""
    each = np.arange(len(tokens))[:, None]
    if one.tokens is None:
        found = normalised(one.logprobs)[each, np.clip(tokens, 0, one.logprobs.shape[1] - 1)]
        return np.where((tokens < 0) | (tokens >= one.logprobs.shape[1]), np.nan, found)
    found = _found_by_id(one.tokens, one.logprobs, tokens)
    of_true = np.where(tokens == true[:, None], one.true.astype(np.float64)[:, None], np.nan)
    found = np.where(np.isnan(found), of_true, found)
    return np.where(tokens < 0, np.nan, found)


def _found_by_id(ids: Ids, values: NDArray[np.float32], wanted: Ids) -> Floats:
    """[rows, n] the value beside each wanted id in its row, NaN where the row has no such id."""
    rows = np.arange(len(ids), dtype=np.int64)[:, None] << 32
    keys, sought = (rows + ids).ravel(), (rows + wanted).ravel()
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys, sought, sorter=order), len(keys) - 1)
    found: Floats = np.where(keys[order[at]] == sought, values.ravel()[order[at]].astype(np.float64), np.nan)
    return found.reshape(wanted.shape)


def likeliest(one: Distributions) -> Ids:
    """[rows] the likeliest token, of equal ones the lowest id; -1 where nothing is told."""
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

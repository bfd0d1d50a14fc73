"""Which tokens step k sees: a pure function of the seed and the step, so that an interrupted run needs no data state.

The training stream is tiled with windows of ``context`` tokens. Each epoch visits every window once, in a permutation
of its own and from a starting offset of its own, so that window boundaries fall elsewhere in each epoch. The
permutation is a Feistel network (Luby & Rackoff 1988) over the next power of four, restricted to the windows by cycle
walking (Black & Rogaway 2002, section 3): any position costs constant time and memory, whatever the corpus's size.

Sequence number ``step * sequences_per_step + row`` decides what a row holds. Two runs of one seed therefore see the
same tokens in the same order, whatever their lengths; the longer one only goes on.

Shape suffixes: B sequences a step, T tokens of context, S steps, N sequences.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.errors import UserError

__all__ = ["BatchOrder", "permute"]

# Four rounds make a Feistel network indistinguishable from random for large halves; tiny domains (a corpus of a few
# windows) have halves of one or two bits and want more.
_ROUNDS = 8
_SEQUENCES_AT_ONCE = 1024
_TOKENS_AT_ONCE = 2**18


def permute(index: NDArray[np.int64], size: int, key: bytes) -> NDArray[np.int64]:
    """Images of ``index`` (1-D, each in [0, size)) under the pseudo-random permutation of [0, size) that ``key`` names.

    Raises ``ValueError`` if an index lies outside [0, size).
    """
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < size):
        raise ValueError(f"an index lies outside [0, {size})")
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    round_keys = np.frombuffer(hashlib.shake_256(key).digest(8 * _ROUNDS), dtype="<u8")
    image = _feistel(index.astype(np.uint64), half_bits, round_keys)
    # Following the cycle until it re-enters [0, size) keeps the map one-to-one; the domain is under four times size.
    outside = np.flatnonzero(image >= size)
    while outside.size:
        image[outside] = _feistel(image[outside], half_bits, round_keys)
        outside = outside[image[outside] >= size]
    return image.astype(np.int64)


def _feistel(value: NDArray[np.uint64], half_bits: int, round_keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right ^ round_key) & mask)
    return (left << shift) | right


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014), modulo 2**64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class BatchOrder:
    """The data order of one run over a stream of ``tokens_length`` tokens.

    A window's inputs are its ``context`` tokens and its targets the same shifted by one, so neighbouring windows
    share one token and an epoch predicts each of its tokens once. At most two windows' worth of tokens at the
    stream's ends are left out of an epoch; which ones differs by epoch.
    """

    def __init__(self, tokens_length: int, context: int, sequences_per_step: int, seed: int) -> None:
        """:class:`UserError` if the stream is shorter than one window and its last target."""
        if context < 1 or sequences_per_step < 1:
            raise ValueError(f"context {context} and sequences_per_step {sequences_per_step} must be at least 1")
        if tokens_length < context + 1:
            raise UserError(
                f"context {context} is too long for this corpus: it has {tokens_length:,} training tokens and one "
                f"sequence needs {context + 1:,}; use a shorter context or a larger corpus"
            )
        self.tokens_length = tokens_length
        self.context = context
        self.sequences_per_step = sequences_per_step
        self.seed = seed
        # One window fewer than fit, so that every offset below `context` gives the same number of windows and the
        # epoch of a sequence is a division.
        self.windows_per_epoch = max(1, (tokens_length - context) // context)
        self._offsets = min(context, tokens_length - self.windows_per_epoch * context)
        # Small batches are worked out for many steps in one go: each by itself costs 2% of a small model's step.
        at_once = min(_SEQUENCES_AT_ONCE, _TOKENS_AT_ONCE // context)
        self._steps_at_once = max(1, at_once // sequences_per_step)
        self._block, self._start_SB = -1, np.empty((0, sequences_per_step), dtype=np.int64)
        self._gathered: tuple[int, NDArray[Any], NDArray[Any]] | None = None

    def windows(self, step: int) -> NDArray[np.int64]:
        """Start of each window of ``step`` (from 0) in the token stream, int64 [B]."""
        if step < 0:
            raise ValueError(f"step {step} is negative")
        block, row = divmod(step, self._steps_at_once)
        if block != self._block:
            count = self._steps_at_once * self.sequences_per_step
            start_N = self._starts(np.arange(block * count, (block + 1) * count, dtype=np.int64))
            self._block, self._start_SB = block, start_N.reshape(self._steps_at_once, self.sequences_per_step)
        start_B: NDArray[np.int64] = self._start_SB[row].copy()
        return start_B

    def _starts(self, sequence_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Window start of each of some sequences that follow one another."""
        epoch_N, index_N = np.divmod(sequence_N, self.windows_per_epoch)
        start_N = np.empty_like(sequence_N)
        for epoch in range(int(epoch_N[0]), int(epoch_N[-1]) + 1):
            rows = epoch_N == epoch
            key = f"order/1/{self.seed}/{epoch}".encode()
            offset = int.from_bytes(hashlib.sha256(key + b"/offset").digest()[:8], "little") % self._offsets
            start_N[rows] = offset + self.context * permute(index_N[rows], self.windows_per_epoch, key)
        return start_N

    def batch(self, tokens: NDArray[Any], step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets of ``step`` from the stream ``tokens`` (1-D): two int64 arrays [B, T].

        ``targets[b, t]`` is the token that follows ``inputs[b, t]``. Raises ``ValueError`` if ``tokens`` is not of
        the length this order was made for.
        """
        if tokens.shape != (self.tokens_length,):
            raise ValueError(f"tokens have shape {tokens.shape}, this order is for ({self.tokens_length},)")
        block, row = divmod(step, self._steps_at_once)
        if self._gathered is None or self._gathered[0] != block or self._gathered[1] is not tokens:
            self.windows(step)
            position_SBT = self._start_SB[:, :, None] + np.arange(self.context + 1, dtype=np.int64)
            self._gathered = (block, tokens, np.asarray(tokens[position_SBT]))
        token_BT = self._gathered[2][row]
        return token_BT[:, :-1].astype(np.int64), token_BT[:, 1:].astype(np.int64)

    def unique_tokens(self, steps: int) -> int:
        """Different training tokens that the first ``steps`` steps see: those of one epoch at most."""
        return min(steps * self.sequences_per_step, self.windows_per_epoch) * self.context

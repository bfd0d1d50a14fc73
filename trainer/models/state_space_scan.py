"""The recurrence of state-space models with scalar decays, in parallel: state-space duality (Dao & Gu 2405.21060).

Inside a chunk it is a masked product like attention's, between chunks a state; all of it is products of matrices and
element-wise work. Heads of a group share B and C, so that their states are one wide product. Decays are sums of
logarithms, taken below the diagonal alone, so nothing overflows.

Shapes: B sequences, T positions, c chunks of Q positions, H heads of P channels, G groups of R heads, N state.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["doubling_sum", "scan"]


def scan(
    x_BTHP: Tensor,
    log_decay_BTH: Tensor,
    b_BTGN: Tensor,
    c_BTGN: Tensor,
    chunk: int,
    state_BGNRP: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """y_t = C_t S_t of the states S_t = exp(log_decay_t) S_(t-1) + B_t x_t, head by head, in chunks of ``chunk``.

    The last chunk may be shorter. state_BGNRP: S before the first token; None is zero. Returns y (B, T, H, P), and S
    after the last token, which is None where it was not needed: in one chunk from zero.
    """
    T = x_BTHP.shape[1]
    whole = T - T % chunk
    if T == 1 and state_BGNRP is not None:
        return _scan_token(x_BTHP, log_decay_BTH, b_BTGN, c_BTGN, state_BGNRP)
    if whole in (0, T):
        return _scan_chunks(x_BTHP, log_decay_BTH, b_BTGN, c_BTGN, chunk, state_BGNRP)
    (x1, x2), (a1, a2), (b1, b2), (c1, c2) = (
        torch.split(each, [whole, T - whole], dim=1) for each in (x_BTHP, log_decay_BTH, b_BTGN, c_BTGN)
    )
    y_BTHP, state_BGNRP = _scan_chunks(x1, a1, b1, c1, chunk, state_BGNRP, keep_state=True)
    rest_BTHP, state_BGNRP = _scan_chunks(x2, a2, b2, c2, chunk, state_BGNRP)
    return torch.cat([y_BTHP, rest_BTHP], dim=1), state_BGNRP


def _scan_chunks(
    x_BTHP: Tensor,
    log_decay_BTH: Tensor,
    b_BTGN: Tensor,
    c_BTGN: Tensor,
    chunk: int,
    state_BGNRP: Tensor | None = None,
    *,
    keep_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """:func:`scan` of whole chunks, or of less than one; no state where none was given, made or is to be kept."""
    B, T, H, P = x_BTHP.shape
    G, N = b_BTGN.shape[2:]
    R, Q, c = H // G, min(chunk, T), max(1, T // chunk)
    x_BcGQRP = x_BTHP.reshape(B, c, Q, G, R, P).transpose(2, 3)
    b_BcGQN, c_BcGQN = (each.reshape(B, c, Q, G, N).transpose(2, 3) for each in (b_BTGN, c_BTGN))
    sum_BcGRQ = running_sum(log_decay_BTH.view(B, c, Q, G, R).permute(0, 1, 3, 4, 2))

    # Inside a chunk: every position reads those before it, by what is left of them.
    after_QQ = torch.ones(Q, Q, dtype=torch.bool, device=x_BTHP.device).triu(1)
    left_BcGRQQ = (sum_BcGRQ[..., :, None] - sum_BcGRQ[..., None, :]).masked_fill(after_QQ, -math.inf).exp()
    scores_BcG1QQ = (c_BcGQN @ b_BcGQN.transpose(-1, -2))[:, :, :, None]
    y_BcGQRP = ((scores_BcG1QQ * left_BcGRQQ) @ x_BcGQRP.transpose(3, 4)).transpose(3, 4)
    if c == 1 and state_BGNRP is None and not keep_state:
        return y_BcGQRP.transpose(2, 3).reshape(B, T, H, P), None

    # Between chunks: what each adds to the state, and what it reads from those before it.
    to_end_BcGQR1 = (sum_BcGRQ[..., -1:] - sum_BcGRQ).exp().transpose(-1, -2)[..., None]
    added_BcGNRP = (b_BcGQN.transpose(-1, -2) @ (x_BcGQRP * to_end_BcGQR1).flatten(-2)).view(B, c, G, N, R, P)
    whole_BcG1R1 = sum_BcGRQ[..., -1].exp()[:, :, :, None, :, None]
    state = torch.zeros_like(added_BcGNRP[:, 0]) if state_BGNRP is None else state_BGNRP
    before = []
    for number in range(c):
        before.append(state)
        state = state * whole_BcG1R1[:, number] + added_BcGNRP[:, number]
    read_BcGQRP = (c_BcGQN @ torch.stack(before, dim=1).flatten(-2)).view(B, c, G, Q, R, P)
    y_BcGQRP = y_BcGQRP + read_BcGQRP * sum_BcGRQ.exp().transpose(-1, -2)[..., None]
    return y_BcGQRP.transpose(2, 3).reshape(B, T, H, P), state


def _scan_token(
    x_B1HP: Tensor, log_decay_B1H: Tensor, b_B1GN: Tensor, c_B1GN: Tensor, state_BGNRP: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`scan` of one token after a state, as it is written."""
    B, G, N, R, P = state_BGNRP.shape
    left_BG1R1 = log_decay_B1H.exp().view(B, G, 1, R, 1)
    added_BGNRP = (b_B1GN.view(B, G, N, 1) @ x_B1HP.reshape(B, G, 1, R * P)).view_as(state_BGNRP)
    state_BGNRP = state_BGNRP * left_BG1R1 + added_BGNRP
    y_BG1RP = c_B1GN.view(B, G, 1, N) @ state_BGNRP.flatten(-2)
    return y_BG1RP.view_as(x_B1HP), state_BGNRP


def running_sum(a_xQ: Tensor) -> Tensor:
    """Inclusive sums along the last dimension."""
    # CUDA's own is not deterministic.
    return doubling_sum(a_xQ) if a_xQ.is_cuda else a_xQ.cumsum(dim=-1)


def doubling_sum(a_xQ: Tensor) -> Tensor:
    """Inclusive sums along the last dimension, of twice as many each time."""
    reach, Q = 1, a_xQ.shape[-1]
    while reach < Q:
        a_xQ = a_xQ + F.pad(a_xQ, (reach, 0))[..., :Q]
        reach *= 2
    return a_xQ

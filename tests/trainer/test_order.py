"""Step k's tokens follow from the seed and k alone; an epoch sees each window once; epochs differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scaling.errors import UserError
from trainer.data.order import BatchOrder, permute


@given(st.integers(1, 5000), st.binary(max_size=8))
def test_permute_is_a_bijection(size: int, key: bytes) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(st.integers(10**6, 10**12), st.lists(st.integers(0, 10**6 - 1), min_size=1, max_size=50, unique=True))
def test_permute_reaches_billions_of_windows_without_holding_them(size: int, index: list[int]) -> None:
    image = permute(np.array(index, dtype=np.int64), size, b"key")
    assert len(set(image.tolist())) == len(index)
    assert image.min() >= 0
    assert image.max() < size


def test_permute_refuses_what_it_has_no_image_for() -> None:
    with pytest.raises(ValueError, match="outside"):
        permute(np.array([5]), 5, b"")


def test_permute_spreads_every_position_evenly_over_keys() -> None:
    """Chi-square of where each of 12 positions goes, over 3,000 keys; the threshold is far in the tail."""
    size, keys = 12, 3000
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), permute(np.arange(size), size, str(key).encode())] += 1
    statistic = float(((counts - keys / size) ** 2 / (keys / size)).sum())
    assert stats.chi2.sf(statistic, (size - 1) ** 2) > 1e-6


def test_permute_leaves_no_trend_or_neighbours() -> None:
    image = permute(np.arange(100_000), 100_000, b"order")
    assert abs(np.corrcoef(np.arange(100_000), image)[0, 1]) < 0.02
    assert (np.abs(np.diff(image)) == 1).sum() < 15


orders = st.builds(
    BatchOrder,
    tokens_length=st.integers(300, 3000),
    context=st.integers(1, 64),
    sequences_per_step=st.integers(1, 200),
    seed=st.integers(0, 2**31),
)


@given(orders.filter(lambda order: order.windows_per_epoch < 40 * order.sequences_per_step))
@settings(max_examples=40)
def test_an_epoch_sees_every_window_once_and_windows_do_not_overlap(order: BatchOrder) -> None:
    windows = order.windows_per_epoch
    steps = -(-windows * 3 // order.sequences_per_step)
    starts = np.concatenate([order.windows(step) for step in range(steps)])
    for epoch in range(3):
        seen = np.sort(starts[epoch * windows : (epoch + 1) * windows])
        assert (np.diff(seen) == order.context).all()
        assert seen[0] >= 0
        assert seen[-1] + order.context + 1 <= order.tokens_length
        left_out = order.tokens_length - windows * order.context
        assert left_out < 2 * order.context + 1


@given(orders, st.integers(0, 10**9))
def test_a_step_is_the_same_whenever_and_however_often_it_is_asked(order: BatchOrder, step: int) -> None:
    again = BatchOrder(order.tokens_length, order.context, order.sequences_per_step, order.seed)
    again.windows(step + 7)
    assert (order.windows(step) == again.windows(step)).all()


def test_the_stream_of_sequences_does_not_depend_on_the_batch() -> None:
    small, large = BatchOrder(10_000, 16, 4, 3), BatchOrder(10_000, 16, 12, 3)
    stream = np.concatenate([small.windows(step) for step in range(300)])
    assert (stream == np.concatenate([large.windows(step) for step in range(100)])).all()


def test_epochs_and_seeds_have_orders_and_offsets_of_their_own() -> None:
    order = BatchOrder(64 * 1001, 64, 1000, 0)
    assert order.windows_per_epoch == 1000
    epochs = [order.windows(step) for step in range(20)]
    assert len({int(starts[0]) % 64 for starts in epochs}) > 10
    ranks = [np.argsort(np.argsort(starts)) for starts in epochs]
    assert all(np.mean(ranks[0] == other) < 0.02 for other in ranks[1:])
    assert (BatchOrder(64 * 1001, 64, 1000, 1).windows(0) != epochs[0]).mean() > 0.98


def test_targets_are_the_tokens_that_follow() -> None:
    tokens = np.arange(1, 5001, dtype=np.uint16)
    x_BT, y_BT = BatchOrder(5000, 32, 8, 0).batch(tokens, 5)
    assert x_BT.shape == y_BT.shape == (8, 32)
    assert x_BT.dtype == y_BT.dtype == np.int64
    assert (y_BT == x_BT + 1).all()


def test_an_epoch_predicts_nearly_every_token_once() -> None:
    tokens = np.arange(2000, dtype=np.uint16)
    order = BatchOrder(2000, 10, 1, 0)
    targets = np.concatenate([order.batch(tokens, step)[1].ravel() for step in range(order.windows_per_epoch)])
    assert len(set(targets.tolist())) == len(targets) == order.unique_tokens(10**6) > 1980
    assert order.unique_tokens(3) == 30


def test_the_order_is_the_same_on_every_machine() -> None:
    """Recorded once; a change here would make interrupted runs continue on other tokens."""
    assert BatchOrder(1_000_000, 128, 6, 0).windows(1000).tolist() == [443155, 428179, 477843, 896915, 523667, 319763]


def test_a_corpus_shorter_than_one_sequence_is_refused() -> None:
    assert BatchOrder(129, 128, 2, 0).windows(3).tolist() == [0, 0]
    with pytest.raises(UserError, match="context 128 is too long for this corpus: it has 128 training tokens"):
        BatchOrder(128, 128, 1, 0)


def test_another_corpus_than_the_order_was_made_for_is_refused() -> None:
    with pytest.raises(ValueError, match="this order is for"):
        BatchOrder(1000, 10, 1, 0).batch(np.zeros(1001, dtype=np.uint16), 0)

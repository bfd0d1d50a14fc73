"""Every row and every window is some process's, and a single process has them all at no cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.distributed.world import ALONE, World, join_world
from trainer.loop.numerics import Numerics


@given(st.integers(1, 9), st.integers(1, 50))
def test_rows_are_shared_out_once_each(ranks: int, each: int) -> None:
    batch = np.arange(ranks * each)
    shares = [batch[World(rank=rank, ranks=ranks).rows(len(batch))] for rank in range(ranks)]
    assert {len(share) for share in shares} == {each}
    assert np.array_equal(np.concatenate(shares), batch)


@given(st.integers(1, 9), st.integers(1, 60))
def test_windows_are_shared_out_in_order_and_in_equal_parts(ranks: int, count: int) -> None:
    windows = np.arange(count) * 3
    shares = [World(rank=rank, ranks=ranks).share(windows) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert np.array_equal(np.concatenate(shares)[:count], windows)


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    with join_world("cpu") as world:
        assert world is ALONE


def test_numerics_of_several_processes_need_as_many(tiny_spec: Callable[..., RunSpec]) -> None:
    with pytest.raises(UserError, match="for 2 processes and 1 were started: start it by `torchrun"):
        ALONE.check(tiny_spec(), Numerics(parallel="fsdp", ranks=2))


def test_alone_the_first_is_all_there_are() -> None:
    with pytest.raises(UserError), ALONE.first():
        raise UserError("no")
    with ALONE.first():
        pass

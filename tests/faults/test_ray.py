"""Workers on Ray lost by pid and with their node: faults 27 and 28, on a cluster of several nodes in this machine."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from .conftest import Outcome, Site, eventually, finish

ray = pytest.importorskip("ray", reason="an extra: pip install 'lossfrontier[ray]'")

# Ray leaves sockets and files of its own to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without processors, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield made
    ray.shutdown()
    made.shutdown()
    # Its pipes are closed by the collector: here, where that is no fault, and not in the next test.
    del made
    gc.collect()


def test_a_lost_worker_and_a_lost_node_cost_nothing_but_time(site: Site, control: Outcome, cluster: Any) -> None:
    """Half of the sweep on this machine's processes, then the rest on Ray, where a worker and then a node are lost."""
    local = site.sweep()
    eventually(lambda: any(row.state == "finished" for row in site.rows()))
    local.terminate()
    finish(local, 143)
    before = {row.key: row.ended_at for row in site.rows() if row.state == "finished"}
    assert 0 < len(before) < len(control)

    site.write(on="ray", address=cluster.address)
    engine = site.sweep()
    site.suspended().kill()
    eventually(lambda: any(row.failures for row in site.rows()))
    eventually(site.under_way)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    finish(engine)
    site.assert_unharmed(control)
    assert {row.key: row.ended_at for row in site.rows() if row.key in before} == before, "nothing is trained twice"


def test_a_cluster_is_started_where_there_is_none_and_ends_with_the_study(site: Site, control: Outcome) -> None:
    site.write(on="ray", address=None)
    engine = site.sweep()
    eventually(site.under_way)
    started = psutil.Process(engine.pid).children(recursive=True)
    assert any("raylet" in process.name() for process in started)
    # Its servers listen on every address, so they must ask for the secret that was made for them.
    (raylet,) = [process for process in started if process.name() == "raylet"]
    assert raylet.environ()["RAY_AUTH_MODE"] == "token"
    assert len(raylet.environ()["RAY_AUTH_TOKEN"]) == 64
    finish(engine)
    site.assert_unharmed(control)
    eventually(lambda: not any(process.is_running() and process.status() != "zombie" for process in started))


def test_a_worker_that_hangs_on_ray_is_killed_and_its_run_goes_on(site: Site, control: Outcome) -> None:
    site.write(on="ray", address=None, hang_seconds=15)
    engine = site.sweep()
    hung = site.suspended()
    finish(engine)
    assert not hung.is_running()
    site.assert_unharmed(control)
    assert "machine" in {row.failure_kind for row in site.rows()}

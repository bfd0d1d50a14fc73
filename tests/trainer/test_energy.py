"""Joules are those of the counters, round and round, nothing twice, and none where no counter can be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trainer.loop import energy
from trainer.loop.energy import Counter, EnergyMeter, nvml_counters, rapl_counters

RANGE_UJ = 262_143_328_850


def zone(powercap: Path, folder: str, name: str, energy_uj: int) -> Path:
    """A zone as the kernel shows it; all zones lie flat in one folder, as links to a tree."""
    path = powercap / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n", encoding="ascii")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n", encoding="ascii")
    (path / "energy_uj").write_text(f"{energy_uj}\n", encoding="ascii")
    return path / "energy_uj"


def set_joules(counter: Path, joules: float) -> None:
    counter.write_text(f"{round(joules * 1e6)}\n", encoding="ascii")


def test_packages_and_memory_count_and_their_parts_and_doubles_do_not(tmp_path: Path) -> None:
    counters = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:0:2": "uncore",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    files = {folder: zone(tmp_path, folder, name, 10**9) for folder, name in counters.items()}
    meter = EnergyMeter(rapl_counters(tmp_path))
    assert meter.source == "rapl 0 package-0, rapl 0:1 dram, rapl 1 package-1"
    for weight, file in enumerate(files.values()):
        set_joules(file, 1000 + 10**weight)
    assert meter.joules() == pytest.approx(10**0 + 10**2 + 10**4)


def test_a_counter_that_comes_round_goes_on_counting(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 5_000_000)
    meter = EnergyMeter(rapl_counters(tmp_path))
    set_joules(file, 7)
    assert meter.joules() == pytest.approx(12)
    for joules in (100_000, 200_000, 50, 60):  # and round again
        set_joules(file, joules)
        meter.joules()
    assert meter.joules() == pytest.approx(5 + RANGE_UJ / 1e6 + 60)


def test_often_updated_it_reads_seldom_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand seconds of 400 W, looked at twenty times a second, with a counter that comes round every 164 s."""
    clock = [0.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: clock[0])
    reads = 0

    def read() -> float:
        nonlocal reads
        reads += 1
        return 400 * clock[0] % 65_536

    meter = EnergyMeter([Counter("c", read, 65_536)])
    for tick in range(1, 20_001):
        clock[0] = tick / 20
        meter.update()
    assert meter.joules() == pytest.approx(400_000)
    assert reads < 120


def test_without_counters_there_is_no_figure(tmp_path: Path) -> None:
    for meter in (EnergyMeter([]), EnergyMeter(rapl_counters(tmp_path / "nowhere"))):
        meter.update()
        assert meter.joules() is None
        assert meter.source is None


def test_counters_that_only_root_may_read_are_none(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()  # unreadable even for root, whom no permission stops
    assert rapl_counters(tmp_path) == []
    if os.getuid() != 0:
        zone(tmp_path, "intel-rapl:1", "package-1", 5).chmod(0)
        assert rapl_counters(tmp_path) == []


def test_a_counter_that_goes_away_takes_the_figure_with_it(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = EnergyMeter(rapl_counters(tmp_path))
    file.unlink()
    assert meter.joules() is None
    set_joules(file, 9)
    assert meter.joules() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine may have one")
def test_a_machine_without_the_nvidia_library_or_driver_has_no_gpu_counter() -> None:
    assert nvml_counters() == []

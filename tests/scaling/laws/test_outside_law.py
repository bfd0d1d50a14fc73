"""A law from another package: the one in docs/laws.md, installed as that page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling import fit_law, fit_table, laws
from scaling.errors import UserError
from scaling.laws.law import Law

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "laws.md").read_text(encoding="utf-8")


def install(folder: Path, module: str, source: str, entry: str) -> None:
    """A package of one module, as pip leaves it."""
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[scaling.laws]\n{entry}\n")


@pytest.fixture
def joint_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Law:
    source = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "JOINT_POWER" in block)
    entry = re.search(r'joint-power = "your_package:(\w+)"', PAGE)
    assert entry is not None
    install(tmp_path, "your_package", source, f"joint-power = your_package:{entry[1]}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "your_package", raising=False)
    return laws.get("joint-power")


def data(law: Law, noise: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    params, tokens = np.exp(rng.uniform(np.log(1e8), np.log(1e10), 30)), np.exp(rng.uniform(14, 21, 30))
    loss = law.predict([1.2, 60.0, 0.12, 0.08], params, tokens) * np.exp(noise * rng.standard_normal(30))
    return {"params": params, "tokens": tokens, "loss": loss}


def test_a_law_of_another_package_is_found_fitted_and_predicted(joint_power: Law) -> None:
    assert "joint-power" in laws.names()
    found = fit_law("joint-power", data(joint_power, 0.002), value="loss", bootstrap=60)
    for name, truth in zip(joint_power.NAMES, (1.2, 60.0, 0.12, 0.08), strict=True):
        assert found.parameters[name].estimate == pytest.approx(truth, rel=0.3), name
    exact = fit_law("joint-power", data(joint_power, 0.0), value="loss", bootstrap=0)
    assert [interval.estimate for interval in exact.parameters.values()] == pytest.approx(
        [1.2, 60, 0.12, 0.08], rel=1e-4
    )
    assert found.predict(1e10, 1e9).low < found.predict(1e10, 1e9).high
    assert joint_power.formula in found.summary()


def test_its_gradient_and_its_units_hold(joint_power: Law) -> None:
    rng = np.random.default_rng(1)
    free, inputs, centre = np.array([0.2, 0.5, 0.3, 0.4]), rng.uniform(-2, 2, (2, 5)), (0.7, -0.4)
    _, gradient = joint_power.response_and_gradient(free, inputs)
    steps = 1e-6 * np.eye(4)
    above, below = (joint_power.response_and_gradient(free + sign * steps, inputs)[0] for sign in (1, -1))
    assert gradient == pytest.approx((above - below).T / 2e-6, abs=1e-8)
    moved, _ = joint_power.response_and_gradient(joint_power.uncentred(free, centre), inputs + np.array([centre]).T)
    assert moved == pytest.approx(joint_power.response_and_gradient(free, inputs)[0])


def test_a_table_of_runs_takes_it_only_if_it_has_an_optimum(joint_power: Law) -> None:
    with pytest.raises(UserError, match="law 'joint-power', of params, tokens, has no compute optimum"):
        fit_table(Path("runs.csv"), law="joint-power")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("LAW = 3\n", "law 'broken-one' of a package is no law: it is 3"),
        ("import not_there\n", "law 'broken-one' of a package can't be loaded: No module named 'not_there'"),
    ],
)
def test_a_package_whose_law_is_none_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    install(tmp_path, "broken_package", source, "broken-one = broken_package:LAW")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_package", raising=False)
    with pytest.raises(UserError, match=says):
        laws.get("broken-one")
    with pytest.raises(UserError, match="law 'm4', of x, has no compute optimum"):
        laws.get_loss_law("m4")


def test_the_page_tells_of_every_law_with_its_formula() -> None:
    built_in = subprocess.run(
        [sys.executable, "-c", "from scaling import laws; print(*laws.names())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in built_in:
        law = laws.get(name)
        assert f"`{name}`" in PAGE and law.formula in PAGE, name
        assert re.split("[,:]", law.citation)[0] in PAGE, name

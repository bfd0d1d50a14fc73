"""The science alone is light: what a notebook waits for when it imports it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "mlflow", "matplotlib", "sqlalchemy", "scipy.stats", "scipy.optimize", "scipy.interpolate")


def _loaded(code: str) -> list[str]:
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout)
    return modules


@pytest.mark.parametrize("code", ["import scaling", "import scaling\nscaling.fit_table\nscaling.predict"])
def test_fitting_and_predicting_load_nothing_heavy(code: str) -> None:
    assert not set(HEAVY) & set(_loaded(code))


def test_importing_the_package_alone_loads_nothing_at_all() -> None:
    assert not {"numpy", "scipy", "pandas", "pydantic"} & set(_loaded("import scaling"))

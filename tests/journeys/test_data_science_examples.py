"""The examples for data scientists run on a real node, as their first lines say; what a node cannot import it refuses before a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandacea_sdk.errors import CodeError
from tests.journeys.conftest import ENVIRONMENT, FEATURES, INPUTS, LABELS, System, system
from tests.prerequisites import ROOT


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A node whose two tables are patients (200 rows) and scikit-learn's digits (500 rows)."""
    with system(tmp_path_factory.mktemp("science"), "bubblewrap", rules={"policy": "any-code", "release": "auto"}) as built:
        patients = "age,pressure,ill\n" + "".join(f"{20 + n % 60},{100 + n % 37},{int(n % 60 > 30)}\n" for n in range(200))
        (built.folder / "data" / f"{FEATURES}.csv").write_text(patients)
        write = "from sklearn.datasets import load_digits; import sys; data = load_digits(as_frame=True).frame[:500]; "
        write += "data.rename(columns={'target': 'digit'}).to_csv(sys.argv[1], index=False)"
        target = str(built.folder / "data" / f"{LABELS}.csv")
        subprocess.run([str(ENVIRONMENT / "bin" / "python"), "-c", write, target], check=True)
        built.start()
        yield built


def run_example(node: System, name: str, asset_id: str, folder: Path) -> str:
    """Run an example as a program in `folder`; return what it printed."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "PANDACEA_PRIVATE_KEY": node.accounts[2]["private_key"]}
    line = [sys.executable, str(ROOT / "examples" / name), node.lease(), asset_id, node.url]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=variables, cwd=folder, timeout=200)
    assert done.returncode == 0, done.stderr + node.log()[-2000:]
    return done.stdout


def test_coefficients_come_home(node: System, tmp_path: Path) -> None:
    """Age decides who is ill in this table, and the model says so; `n_jobs=-1` hinders nothing."""
    said = run_example(node, "sklearn_example.py", FEATURES, tmp_path)
    assert "200 rows, best penalty" in said
    weights = {line.split()[0]: float(line.split()[1]) for line in said.splitlines() if line.startswith("  ")}
    assert set(weights) == {"age", "pressure"}
    assert weights["age"] > 3 * abs(weights["pressure"])


def test_coefficients_predict_without_scikit_learn() -> None:
    """What the example computes at home is the logistic function of the standardised row."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from sklearn_example import predict  # type: ignore[import-not-found]  # a program, not a module of this project
    finally:
        sys.path.pop(0)
    fitted = {"features": ["a"], "mean": [10.0], "scale": [2.0], "coefficients": [1.0], "intercept": 0.0}
    assert predict(fitted, {"a": 10.0}) == 0.5
    assert predict(fitted, {"a": 14.0}) == pytest.approx(0.880797, abs=1e-6)


def test_a_network_learns_digits(node: System, tmp_path: Path) -> None:
    """Weights and the picture that the script left open are saved, and the network reads most digits."""
    said = run_example(node, "digits_example.py", LABELS, tmp_path)
    assert float(said.splitlines()[0].rsplit(" ", 1)[1]) > 0.5, "whatever the seed; guessing reads a tenth"
    assert (tmp_path / "out" / "digits.pth").read_bytes()[:2] == b"PK"
    assert (tmp_path / "out" / "figure-1.png").read_bytes()[:4] == b"\x89PNG"


def test_what_the_environment_lacks_is_refused_before_a_run(node: System, tmp_path: Path) -> None:
    """With what is there; nothing is charged for it."""
    script = tmp_path / "script.py"
    script.write_text("import numpy\nimport tensorflow\n")
    client, lease_id = node.client(), node.lease()
    with pytest.raises(CodeError) as caught:
        client.execute_computation(lease_id, script, INPUTS)
    assert caught.value.code == "code-import-missing"
    assert "no module tensorflow" in str(caught.value)
    assert "sklearn" in str(caught.value)
    assert client.lease(lease_id)["used"] == 0, json.dumps(client.lease(lease_id))

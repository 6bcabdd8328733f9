"""Fit a scikit-learn model as a Spender and use its coefficients at home, without scikit-learn and without a pickle.

PANDACEA_PRIVATE_KEY=0x... python examples/sklearn_example.py LEASE_ID ASSET_ID [NODE_URL]
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandacea_sdk.client import PandaceaClient

SCRIPT = Path(__file__).parent / "sklearn_script.py"


def predict(fitted: Mapping[str, Any], row: Mapping[str, float]) -> float:
    """Return the probability of the second class for one row."""
    score = fitted["intercept"]
    columns = zip(fitted["features"], fitted["mean"], fitted["scale"], fitted["coefficients"], strict=True)
    for name, mean, scale, weight in columns:
        score += weight * (row[name] - mean) / scale
    return 1 / (1 + math.exp(-score))


def main(lease_id: str, asset_id: str, url: str = "http://localhost:8080") -> None:
    """Run the script under `lease_id` and print what was learned."""
    with PandaceaClient(url) as client:
        answer = client.execute_computation(lease_id, SCRIPT, [{"asset_id": asset_id, "variable_name": "patients"}])
        print(answer["results"]["output"], end="")
        fitted = json.loads(client.decode_artifact(answer["results"]["artifacts"]["coefficients.json"]))
    for name, weight in zip(fitted["features"], fitted["coefficients"], strict=True):
        print(f"{name:>20} {weight:+.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run one computation as a Spender: send a script, get trained weights, check who vouches for them.

PANDACEA_PRIVATE_KEY=0x... python examples/federated_learning_example.py LEASE_ID [NODE_URL]
"""

from __future__ import annotations

import sys
from pathlib import Path

from pandacea_sdk.client import PandaceaClient

SCRIPT = Path(__file__).parent / "federated_learning_script.py"
INPUTS = [
    {"asset_id": "earner-data-asset-123", "variable_name": "features"},
    {"asset_id": "earner-data-asset-456", "variable_name": "labels"},
]


def main(lease_id: str, url: str = "http://localhost:8080") -> None:
    """Run the example script under `lease_id` and save its weights in ./out."""
    with PandaceaClient(url) as client:
        answer = client.execute_computation(lease_id, SCRIPT, INPUTS)
        print(answer["results"]["output"], end="")
        weights = client.decode_artifact(answer["results"]["artifacts"]["model_weights.pth"])
    target = Path("out")
    target.mkdir(exist_ok=True)
    (target / "model_weights.pth").write_bytes(weights)
    print(f"{len(weights)} bytes of weights in {target / 'model_weights.pth'}; result hash {answer['result_hash']}")


if __name__ == "__main__":
    main(*sys.argv[1:])

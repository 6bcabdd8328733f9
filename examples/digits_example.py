"""Train a convolutional network on somebody's digits as a Spender; save weights and picture in ./out.

PANDACEA_PRIVATE_KEY=0x... python examples/digits_example.py LEASE_ID ASSET_ID [NODE_URL]
"""

from __future__ import annotations

import sys
from pathlib import Path

from pandacea_sdk.client import PandaceaClient

SCRIPT = Path(__file__).parent / "digits_script.py"


def main(lease_id: str, asset_id: str, url: str = "http://localhost:8080") -> None:
    """Run the script under `lease_id` and save its artifacts in ./out, which must be empty or absent."""
    with PandaceaClient(url) as client:
        answer = client.execute_computation(lease_id, SCRIPT, [{"asset_id": asset_id, "variable_name": "digits"}])
        print(answer["results"]["output"], end="")
        for name, artifact in answer["results"]["artifacts"].items():
            target = Path("out") / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(client.decode_artifact(artifact))
            print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])

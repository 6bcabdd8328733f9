"""Run one script twice: on mock rows here, then unchanged on the private table in the Earner's sandbox.

    python examples/syft_example.py --node http://localhost:8080 --product cardiac-outcomes --lease 0x...

Needs: pip install pandacea syft pandas pyarrow; the key as PANDACEA_PRIVATE_KEY or PANDACEA_KEYSTORE (see docs).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.mocks import offer_to_syft

SCRIPT = Path(__file__).resolve().parent / "syft_script.py"


def at_home(node: PandaceaClient, product_id: str, folder: Path) -> None:
    """Download the mock rows and run the script on them."""
    for path in node.save_mocks(product_id, folder / "mock"):
        print(f"mock rows: {path.name}, {path.stat().st_size} bytes")
    environment = offer_to_syft(folder / "mock", folder / "syftbox")
    (folder / "work").mkdir()
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=folder / "work", env=os.environ | environment, capture_output=True, text=True, check=True
    )
    print(f"at home: {done.stdout.strip()}")


def main() -> int:
    """Run the script in both places."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--node", default="http://localhost:8080")
    parser.add_argument("--product", required=True)
    parser.add_argument("--asset", default="patients")
    parser.add_argument("--lease", help="without it the script runs at home only")
    asked = parser.parse_args()
    with PandaceaClient(asked.node) as node, tempfile.TemporaryDirectory() as folder:
        at_home(node, asked.product, Path(folder))
        if asked.lease is None:
            return 0
        answer = node.execute_computation(asked.lease, SCRIPT, [{"asset_id": asked.asset, "variable_name": "patients_table"}])
        print(f"in the sandbox: {answer['results']['output'].strip()}")
        print(f"result {answer['result_hash']}, signed by the Earner")
        return 0 if answer["success"] else 1


if __name__ == "__main__":
    sys.exit(main())

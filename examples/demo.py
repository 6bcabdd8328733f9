"""From an approved on-chain lease to trained, verified weights: the whole system on this machine, in one command.

    python examples/demo.py [--csv FILE --features a,b --label y] [--sandbox auto|docker|bubblewrap] [--verbose]

Everything is real: a chain (py-evm behind JSON-RPC on loopback), the LeaseAgreement contract, the node with SQLite, a sandbox, real
data. Exit status 0 only if every step held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pandacea_sdk.chain import LeaseChain, deploy
from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.errors import PandaceaError

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "federated_learning_script.py"
PROBE = ROOT / "examples" / "network_probe_script.py"
SANDBOX_PYTHON = ROOT / ".sandbox" / "bin" / "python"
PRODUCT = "diabetes-progression"
FEATURES, LABELS = "earner-data-asset-123", "earner-data-asset-456"
INPUTS = [{"asset_id": FEATURES, "variable_name": "features"}, {"asset_id": LABELS, "variable_name": "labels"}]
PRICE = 2 * 10**16

MAKE_DIABETES = """
import sys
from sklearn.datasets import load_diabetes
table = load_diabetes(as_frame=True, scaled=False)
table.data.to_csv(sys.argv[1], index=False)
table.target.to_frame().to_csv(sys.argv[2], index=False)
print(len(table.data), table.data.shape[1])
"""
SPLIT_TABLE = """
import sys
import pandas
table = pandas.read_csv(sys.argv[3])
features, label = sys.argv[4].split(","), sys.argv[5]
missing = [name for name in [*features, label] if name not in table.columns]
if missing:
    sys.exit(f"the table has no column {', '.join(missing)}; it has: {', '.join(table.columns)}")
table = table[[*features, label]].dropna()
table[features].to_csv(sys.argv[1], index=False)
table[[label]].to_csv(sys.argv[2], index=False)
print(len(table), len(features))
"""
TRAIN_OUTSIDE = """
import runpy, sys
import pandas
names = {"features": pandas.read_csv(sys.argv[2]), "labels": pandas.read_csv(sys.argv[3]), "params": {}}
runpy.run_path(sys.argv[1], init_globals={**names, "pandacea_progress": lambda done, total: None})
"""
COMPARE = """
import sys
import torch
torch.set_num_threads(1)
one, two = (torch.load(path, weights_only=True) for path in sys.argv[1:3])
assert one.keys() == two.keys(), (one.keys(), two.keys())
worst = max((one[name] - two[name]).abs().max().item() for name in one)
assert all(torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-5) for name in one), f"weights differ by {worst}"
print(f"{worst:.1e}")
"""


class Narrator:
    """Prints each step of the demo and how long it took. A step that fails ends the demo."""

    def __init__(self) -> None:
        """Start the clock of the whole demo."""
        self._start = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Run one step; call the yielded function with notes to print about it."""
        begun = time.monotonic()
        notes: list[str] = []
        sys.stdout.write(f"  {title} ... ")
        sys.stdout.flush()
        try:
            yield notes.append
        except BaseException:
            print("FAILED")
            raise
        print(f"ok  ({time.monotonic() - begun:.1f} s)")
        for note in notes:
            print(f"      {note}")

    def chapter(self, title: str) -> None:
        """Print a heading above steps."""
        print(f"\n{title}")

    def end(self) -> None:
        """Print the last line, with the total time."""
        print(f"\nEvery step held. {time.monotonic() - self._start:.1f} s in all.")


def main() -> int:
    """Run the demo; exit status 0 only if every step held."""
    parser = argparse.ArgumentParser(description="From an approved lease to trained weights.")
    parser.add_argument("--csv", type=Path, help="your own table instead of the diabetes data")
    parser.add_argument("--features", help="comma-separated feature columns of --csv")
    parser.add_argument("--label", help="label column of --csv")
    parser.add_argument("--sandbox", default="auto", choices=["auto", "docker", "bubblewrap"])
    parser.add_argument("--verbose", action="store_true", help="show the node's log")
    asked = parser.parse_args()
    if (asked.csv is None) != (asked.features is None) or (asked.csv is None) != (asked.label is None):
        parser.error("--csv, --features and --label go together")
    narrator = Narrator()
    folder = Path(tempfile.mkdtemp(prefix="pandacea-demo-"))
    try:
        with ExitStack() as stack:
            _run(narrator, stack, folder, asked)
    except (AssertionError, PandaceaError, subprocess.CalledProcessError, OSError, ValueError) as problem:
        detail = problem.stderr.strip() if isinstance(problem, subprocess.CalledProcessError) and problem.stderr else problem
        print(f"\nThe demo ends here: {detail}", file=sys.stderr)
        log = folder / "node.log"
        if log.exists():
            print("The end of the node's log:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    narrator.end()
    return 0


def _run(narrator: Narrator, stack: ExitStack, folder: Path, asked: argparse.Namespace) -> None:
    narrator.chapter("The chain")
    with narrator.step("start an embedded chain and deploy the LeaseAgreement") as note:
        chain = _start_chain(stack)
        earner, spender, stranger = chain["accounts"][1], chain["accounts"][2], chain["accounts"][3]
        arbiter = chain["accounts"][4]["address"]
        record = asyncio.run(deploy(chain["url"], chain["accounts"][0]["private_key"], arbiter=arbiter))
        record.write(folder / "deployment.json")
        note(f"chain {record.chain_id}, contract {record.address}, block {record.deploy_block}")

    narrator.chapter("The Earner")
    with narrator.step("put the tables into the data folder") as note:
        rows, columns = _tables(folder / "data", asked)
        note(f"{rows} rows: {FEATURES} with {columns} columns, {LABELS} with the label; they never leave it")
    with narrator.step("start the node (SQLite, sandbox)") as note:
        url, node = _start_node(stack, folder, chain["url"], earner, asked)
        ready = _wait_ready(url, node, folder)
        note(f"{url}, sandbox: {ready['sandbox']}")

    narrator.chapter("The lease")
    with narrator.step("the Spender makes a lease, the Earner approves it") as note:
        lease_id = asyncio.run(_lease(chain["url"], record.address, spender, earner))
        other_lease = asyncio.run(_lease(chain["url"], record.address, stranger, earner))
        note(f"lease {lease_id[:18]}..., {PRICE / 10**18} ether, 3 computations")
    client = stack.enter_context(PandaceaClient(url, key=spender["private_key"], rpc_url=chain["url"], contract=record.address))
    with narrator.step("the node sees the approval and proves who signed it"):
        _until(lambda: client.lease(lease_id)["may_run"], 30, "the node did not see the approval")

    narrator.chapter("The computation")
    with narrator.step("send examples/federated_learning_script.py, get a result") as note:
        answer = client.execute_computation(lease_id, SCRIPT, INPUTS)
        assert answer["success"], answer.get("error")
        note(answer["results"]["output"].strip())
    weights = client.decode_artifact(answer["results"]["artifacts"]["model_weights.pth"])
    with narrator.step("load the weights; compare with the same script run outside the sandbox") as note:
        note(f"{len(weights)} bytes; largest difference {_compare(folder, weights)}")
    with narrator.step("verify: bytes, manifest, receipt, signer") as note:
        verified = client.verify(answer)
        note(f"result hash {verified.result_hash[:18]}..., receipt signed by {verified.signer}")
    with narrator.step("read the hash back from the chain") as note:
        committed = asyncio.run(_committed(chain["url"], record.address, lease_id, answer["computation_id"]))
        assert committed is not None, "nothing was committed within 20 s"
        assert committed == answer["result_hash"], f"the chain has {committed}"
        note(f"committedResult = {committed[:18]}...")

    narrator.chapter("What is refused")
    _refusals(narrator, url, client, lease_id, other_lease, chain, record.address)

    narrator.chapter("A script that tries to leave")
    with narrator.step("send examples/network_probe_script.py") as note:
        note(_try_to_leave(client, lease_id))

    narrator.chapter("The proof")
    with narrator.step("the Earner replays the first computation: pandacea replay") as note:
        note(_replay(folder, answer["computation_id"], committed))


def _try_to_leave(client: PandaceaClient, lease_id: str) -> str:
    """Send a script that tries every way out; each must fail."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe = client.execute_computation(lease_id, PROBE, [], params={"port": listener.getsockname()[1]})
    attempts = json.loads(probe["results"]["output"])
    assert "connected" not in attempts.values(), attempts
    assert "resolved" not in attempts.values(), attempts
    return ", ".join(f"{name}: {result}" for name, result in attempts.items())


def _replay(folder: Path, computation_id: str, committed: str) -> str:
    """Run a computation again as the Earner would; what comes out must be what the chain has."""
    command = [sys.executable, "-m", "pandacea", "replay", computation_id, "--json", "--config", str(folder / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["result_hash"] == committed, "the replay is of another result than the chain has"
    return f"equal, byte for byte, to what the chain has as {committed[:18]}..."


def _start_chain(stack: ExitStack) -> dict[str, Any]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pandacea.devchain", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_environment()
    )
    stack.callback(_stop, process)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise OSError("the embedded chain did not start")
    started: dict[str, Any] = json.loads(line)
    return started


def _tables(data: Path, asked: argparse.Namespace) -> tuple[int, int]:
    data.mkdir(mode=0o700)
    files = [str(data / f"{FEATURES}.csv"), str(data / f"{LABELS}.csv")]
    if asked.csv is None:
        said = _python(MAKE_DIABETES, *files)
    else:
        said = _python(SPLIT_TABLE, *files, str(asked.csv.resolve()), asked.features, asked.label)
    rows, columns = map(int, said.split())
    assets: object = [FEATURES, LABELS]
    if asked.csv is not None:  # named on the command line, so they are kept, whatever they look like
        assets = {FEATURES: {"keep": asked.features.split(",")}, LABELS: {"keep": [asked.label]}}
    product = {
        "id": PRODUCT,
        "name": "Diabetes progression",
        "description": "Ten measurements of 442 patients and their disease progression a year later (Efron et al., 2004)."
        if asked.csv is None
        else "A table of your own.",
        "keywords": ["health", "regression"],
        "price": "0.02 ether",
        "assets": assets,
        # Stated by this demo's Earner; without them a product runs only approved code and holds every result.
        "rules": {"policy": "any-code", "release": "auto", "live_output": "full", "show_messages": True},
    }
    (data / "products.yaml").write_text(json.dumps({"products": [product]}, indent=2))
    return rows, columns


def _start_node(
    stack: ExitStack, folder: Path, rpc_url: str, earner: dict[str, str], asked: argparse.Namespace
) -> tuple[str, subprocess.Popen[bytes]]:
    from pandacea import keys

    passphrase = secrets.token_urlsafe(24)
    secret = folder / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(passphrase)
    keys.import_key(folder / "operator.json", earner["private_key"], passphrase)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "blockchain": {
            "rpc_url": rpc_url,
            "deployment": "deployment.json",
            "confidence": {"confirmations": 0},
            "development": True,
            "poll_seconds": 0.2,
        },
        "earner": {"address": earner["address"], "keystore": "operator.json", "passphrase_file": "passphrase"},
        "privacy": {
            "sandbox": asked.sandbox,
            "environment": str(ROOT / ".sandbox"),
            "pool_size": 1,
            "cgroups": _has_control_groups(),
        },
        "server": {"port": port},
        "settlement": {"post_results": True},
    }
    (folder / "config.yaml").write_text(json.dumps(config, indent=2))
    log = stack.enter_context((folder / "node.log").open("w"))
    process = subprocess.Popen(
        [sys.executable, "-m", "pandacea", "run", "--config", str(folder / "config.yaml")],
        stdout=log,
        stderr=None if asked.verbose else subprocess.STDOUT,
        cwd=folder,
        env=_environment(),
    )
    stack.callback(_stop, process)
    return f"http://localhost:{port}", process


def _has_control_groups() -> bool:
    """Tell whether control groups can limit scripts here; where not, print that: a node then starts only with privacy.cgroups: false."""
    from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup

    if NodeCgroup.is_available():
        return True
    print(
        "This user may not make control groups, so in bubblewrap a watch limits the script's memory instead, and nothing its processors\n"
        "(weaker; docs/security.md). The demo accepts that with privacy.cgroups: false; real nodes run with Delegate=yes."
    )
    return False


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}


def _wait_ready(url: str, node: subprocess.Popen[bytes], folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def ready() -> bool:
        assert node.poll() is None, "the node did not start"
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:
                found.update(json.load(answer))
                return "sandbox" in found  # else another program took the port first, and the node will say so and end
        except (OSError, ValueError):  # not there yet, or not a node
            return False

    _until(ready, 60, f"the node did not become ready; its log: {folder / 'node.log'}")
    return found


async def _lease(rpc_url: str, contract: str, spender: dict[str, str], earner: dict[str, str]) -> str:
    async with LeaseChain(rpc_url, contract, key=spender["private_key"]) as chain:
        expires = await chain.now() + 7 * 86_400
        lease_id = await chain.create_lease(earner["address"], PRODUCT, price=PRICE, expires_at=expires, max_computations=3)
    async with LeaseChain(rpc_url, contract, key=earner["private_key"]) as chain:
        await chain.approve(lease_id)
    return lease_id


async def _committed(rpc_url: str, contract: str, lease_id: str, computation_id: str) -> str | None:
    async with LeaseChain(rpc_url, contract) as chain:
        for _ in range(100):
            found = await chain.committed_result(lease_id, computation_id)
            if found:
                return found
            await asyncio.sleep(0.2)
    return None


def _compare(folder: Path, weights: bytes) -> str:
    inside = folder / "inside.pth"
    inside.write_bytes(weights)
    tables = [str(folder / "data" / f"{asset}.csv") for asset in (FEATURES, LABELS)]
    _python(TRAIN_OUTSIDE, str(SCRIPT), *tables, cwd=folder)
    return _python(COMPARE, str(inside), str(folder / "model_weights.pth")).strip()


def _refusals(
    narrator: Narrator, url: str, client: PandaceaClient, lease_id: str, other_lease: str, chain: dict[str, Any], contract: str
) -> None:
    def refused(code: str, attempt: Callable[[], object]) -> str:
        try:
            attempt()
        except PandaceaError as problem:
            assert problem.code == code, f"refused with {problem.code}, expected {code}: {problem}"
            return str(problem)
        raise AssertionError(f"it was not refused ({code})")

    nobody = chain["accounts"][7]["private_key"]
    with narrator.step("a caller without any lease") as note, PandaceaClient(url, key=nobody, contract=contract) as outsider:
        note(refused("unknown-spender", lambda: outsider.execute_computation(lease_id, SCRIPT, INPUTS)))
    with narrator.step("a lease that does not exist") as note:
        note(refused("lease-unknown", lambda: client.execute_computation("0x" + "00" * 32, SCRIPT, INPUTS)))
    with narrator.step("somebody else's lease") as note:
        note(refused("lease-unknown", lambda: client.execute_computation(other_lease, SCRIPT, INPUTS)))
    with narrator.step("an asset outside the product") as note:
        elsewhere = [{"asset_id": "earner-data-asset-999", "variable_name": "secret"}]
        note(refused("asset-outside-product", lambda: client.execute_computation(lease_id, SCRIPT, elsewhere)))
    with narrator.step("a request sent twice") as note:
        path = f"/api/v1/leases/{lease_id}"
        headers = client.sign("GET", path)
        statuses = [_send(url + path, headers) for _ in range(2)]
        assert statuses == [200, 401], statuses
        note("the same signed bytes: 200, then 401 request-replayed")


def _send(url: str, headers: dict[str, str]) -> int:
    asked = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as problem:
        return problem.code


def _python(program: str, *arguments: str, cwd: Path = ROOT) -> str:
    """Run a program in the sandbox's Python, outside the sandbox."""
    with tempfile.TemporaryDirectory(prefix="pandacea-demo-") as scratch:  # torch leaves its cache in the temporary folder
        environment = os.environ | {"TMPDIR": scratch}
        command = [str(SANDBOX_PYTHON), "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, env=environment).stdout


def _until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except PandaceaError:
            pass  # not yet: the node knows no such lease or spender
        time.sleep(0.1)
    raise AssertionError(otherwise)


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())

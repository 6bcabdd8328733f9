"""The checked-in artifacts are what the sources compile to."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from eth_utils.crypto import keccak

from pandacea_sdk.protocol.contract import lease_agreement
from tests.contracts.agreement import ROOT, Agreement, artifact
from tests.prerequisites import skip_or_fail

CONTRACTS = ROOT / "contracts"
PUBLISHED = ROOT / "daemon" / "pandacea_sdk" / "protocol" / "abi"


def test_a_fresh_compile_changes_nothing() -> None:
    """Same compiler, settings and libraries: the same bytes."""
    if shutil.which("node") is None or not (CONTRACTS / "node_modules" / "solc").exists():
        skip_or_fail("needs Node and `npm --prefix contracts ci`")
    run = subprocess.run([sys.executable, str(CONTRACTS / "fresh.py")], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "up to date\n"), run.stderr


def test_an_edited_source_is_noticed_without_a_compiler(tmp_path: Path) -> None:
    """By the digests the artifacts carry; the message names file and remedy."""
    copy = tmp_path / "contracts"
    shutil.copytree(CONTRACTS, copy, ignore=shutil.ignore_patterns("node_modules", ".slither"))
    shutil.copytree(PUBLISHED, tmp_path / "daemon" / "pandacea_sdk" / "protocol" / "abi")

    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(copy / "fresh.py")]
        return subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, check=False)

    assert check().returncode == 0
    with (copy / "src" / "LeaseAgreement.sol").open("a", encoding="utf-8") as file:
        file.write("// one more line\n")
    stale = check()
    assert stale.returncode == 1
    assert "LeaseAgreement.json is older than src/LeaseAgreement.sol; run `make contracts`" in stale.stderr


def test_every_deployment_has_the_published_code_hash(agreement: Agreement) -> None:
    """Two deployments with other constructor arguments, one runtime code: its hash can be compared anywhere."""
    other = agreement.deploy(agreement.abi, agreement.stranger, agreement.other)
    for address in (agreement.address, other):
        code = bytes(agreement.w3.eth.get_code(agreement.w3.to_checksum_address(address)))
        assert "0x" + keccak(code).hex() == lease_agreement().runtime_code_hash


def test_a_lease_takes_four_slots_and_only_one_of_them_changes_later() -> None:
    """The layout that docs/contract.md states."""
    with (PUBLISHED / "LeaseAgreement.json").open(encoding="utf-8") as file:
        layout = json.load(file)["storage"]["struct Lease"]
    slots: dict[int, list[str]] = {}
    for label, slot, _, _ in layout:
        slots.setdefault(slot, []).append(label)
    assert slots == {
        0: ["spender", "price"],
        1: ["earner", "expiresAt", "maxComputations"],
        2: ["dataProductId"],
        3: ["arbiterId", "status", "committed", "createdAt", "approvedAt", "executedAt", "disputedAt", "operatorEpoch"],
    }


def test_the_lock_file_names_no_place_to_download_from() -> None:
    """Packages are pinned by integrity; where they come from is the machine's business."""
    lock = json.loads((CONTRACTS / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert all("resolved" not in package for package in packages.values())
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


def test_the_first_versions_shape_is_here_for_tests_only() -> None:
    """The node reads old deployments by an ABI without code; the tests have the code."""
    with (PUBLISHED / "LeaseAgreementV0.json").open(encoding="utf-8") as file:
        published = json.load(file)
    assert "bytecode" not in published
    assert published["abi"] == artifact("LeaseAgreementV0")["abi"]

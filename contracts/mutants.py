"""Change the contract in one place at a time and see whether the tests notice: mutation testing.

    python contracts/mutants.py [--jobs 2] [--only TEXT] [--list]

Each check is taken away, each comparison shifted by one or turned round, each period and share changed, each status, event and
assignment of money dropped or swapped, by rules over the source's lines; HAND holds what no rule makes. A mutant that does not compile
counts as killed by the compiler. One that the tests pass is alive: exit status 1, unless EQUIVALENT says why nobody could tell it from
the contract.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
SOURCE: Final = HERE / "src" / "LeaseAgreement.sol"
ARTIFACT: Final = Path("daemon/pandacea_sdk/protocol/abi/LeaseAgreement.json")
SUITE: Final = Path("tests/contracts")
BESIDE: Final = ("test_gas.py", "test_artifacts.py", "test_static_analysis.py", "test_tree.py")
"""Not asked: they look at bytes and documents, not at what the contract does."""
LAST: Final = "test_law.py"
"""Random histories: the slowest, asked when all the others have passed."""
NEAREST: Final = {
    "_create": ("create_lease",),
    "_approve": ("approve_lease", "approve_lease_by_signature"),
    "_commitRefusal": ("commit_results",),
    "_credit": ("withdraw", "finalize_lease"),
    "_withdraw": ("withdraw", "withdraw_to"),
    "_appoint": ("set_arbiter", "constructor"),
    "_isSigned": ("verify_receipt", "prove_equivocation"),
    "_heldStake": ("cancel_lease", "prove_equivocation"),
    "_stake": ("raise_dispute", "split_dispute"),
    "_live": ("commit_result", "prove_equivocation"),
    "_onlyAfter": ("split_dispute", "finalize_lease"),
    "getLease": ("views", "create_lease"),
}
"""Function of the contract -> the tests that are asked first about a change in it, where their file is not named after it."""
SECONDS: Final = 900
"""Longest time the suite may take on one mutant."""

COMPARISONS: Final = {">=": (">", "<"), "<=": ("<", ">"), ">": (">=", "<="), "<": ("<=", ">="), "==": ("!=",), "!=": ("==",)}
STATUSES: Final = {
    "Approved": "Executed",
    "Executed": "Disputed",
    "Disputed": "Approved",
    "Finalized": "Settled",
    "Cancelled": "Settled",
}

ZEROED_FIRST: Final = (
    "        creditOf[msg.sender] = 0;\n"
    "        emit Withdrawn(msg.sender, to, amount);\n"
    "        // Interaction\n"
    '        (bool sent, ) = to.call{value: amount}("");\n'
    "        if (!sent) revert WithdrawalFailed(to, amount);\n"
)
HAND: Final = (
    ("the lock of withdrawals is taken away", "private nonReentrant {", "private {"),
    (
        "the credit is not zeroed",
        "        creditOf[msg.sender] = 0;\n        emit Withdrawn(msg.sender, to, amount);\n",
        "        emit Withdrawn(msg.sender, to, amount);\n",
    ),
    (
        "the credit is zeroed after the ether left",
        ZEROED_FIRST,
        ZEROED_FIRST.replace("        creditOf[msg.sender] = 0;\n", "") + "        creditOf[msg.sender] = 0;\n",
    ),
    (
        "the stake is read after the status",
        "uint256 amount = lease.price + _heldStake(lease);\n        lease.status = Status.Cancelled;",
        "lease.status = Status.Cancelled;\n        uint256 amount = lease.price + _heldStake(lease);",
    ),
    (
        "the stake is read after the status of an equivocation",
        "uint256 stake = _heldStake(lease);\n        lease.status = Status.Refunded;",
        "lease.status = Status.Refunded;\n        uint256 stake = _heldStake(lease);",
    ),
    ("an odd wei goes to the Earner", "price / 2; // nothing", "(price + 1) / 2; // nothing"),
    ("half is paid for nothing", "lease.committed == 0 ? 0 : price / 2", "price / 2"),
    ("all of an undecided dispute goes back", "lease.committed == 0 ? 0 : price / 2", "0"),
    ("the arbiter of today decides old disputes", "_arbiters[lease.arbiterId]) revert", "_arbiters[_arbiterId]) revert"),
    ("the arbiter of today is shown for old leases", "arbiter: _arbiters[lease.arbiterId],", "arbiter: _arbiters[_arbiterId],"),
    (
        "the chain id of the domain is fixed",
        "block.chainid,\n                address(this),\n                0",
        "1,\n                address(this),\n                0",
    ),
    (
        "the chain id of lease ids is fixed",
        "abi.encode(\n                block.chainid,",
        "abi.encode(\n                uint256(1),",
    ),
    ("the contract is not in lease ids", "address(this),\n                msg.sender,", "address(0),\n                msg.sender,"),
    ("the price is cut to 96 bits", "        if (msg.value > type(uint96).max) revert PriceTooLarge(msg.value);\n", ""),
    ("a nonce is used twice", "nonceOf[msg.sender]++;", "nonceOf[msg.sender];"),
    ("the short form leases two", "uint64(block.timestamp + DEFAULT_TERM), 1);", "uint64(block.timestamp + DEFAULT_TERM), 2);"),
    ("an operator's epoch does not grow", "record.epoch + 1;", "record.epoch;"),
    ("an approval keeps no epoch", "        lease.operatorEpoch = _operators[earner].epoch;\n", ""),
    (
        "a replaced operator is not remembered",
        "        if (replaced != address(0)) _replacedIn[msg.sender][replaced] = epoch;\n",
        "",
    ),
    ("receipts count before the approval", "        if (lease.approvedAt == 0) return false;\n", ""),
    (
        "the operator's receipts do not count",
        "            signer == _operators[earner].operator ||\n            _replacedIn",
        "            _replacedIn",
    ),
    ("the second receipt may be of another lease", "            second.leaseId != leaseId ||\n", ""),
    (
        "the second signature is not looked at",
        "        if (!_isSigned(lease, second, secondSignature)) revert NotSigned(leaseId, second.resultHash);\n",
        "",
    ),
    ("a refunded lease reads as approved", "isApproved: lease.approvedAt != 0 && !refunded", "isApproved: lease.approvedAt != 0"),
    ("commitments are not counted", "            lease.committed = committed + 1; // at most maxComputations\n", ""),
    (
        "commitments of a batch are not counted",
        "                ++_leases[one.leaseId].committed; // at most maxComputations\n",
        "",
    ),
    ("a batch keeps no hash", "            _results[one.leaseId][one.computationId] = one.resultHash;\n", ""),
    ("one bad commitment ends the batch", "                continue;\n", "                break;\n"),
    ("the first of a batch is left out", "for (uint256 i; i <", "for (uint256 i = 1; i <"),
    (
        "a batch counts what it refused",
        "                ++accepted; // at most commitments.length\n",
        "                accepted += 2;\n",
    ),
    ("the deadline of a signed approval is not looked at", "        _notAfter(leaseId, deadline);\n", ""),
    (
        "a signed approval is for any deadline",
        "abi.encode(APPROVAL_TYPEHASH, leaseId, deadline)",
        "abi.encode(APPROVAL_TYPEHASH, leaseId, uint256(0))",
    ),
    (
        "a signed approval is for any lease",
        "abi.encode(APPROVAL_TYPEHASH, leaseId, deadline)",
        "abi.encode(APPROVAL_TYPEHASH, bytes32(0), deadline)",
    ),
    (
        "a contract's word is not asked",
        "if (!signed && !SignatureChecker.isValidERC1271SignatureNowCalldata(earner, digest, signature)) {",
        "if (!signed) {",
    ),
    (
        "anything is a signed approval",
        "if (!signed && !SignatureChecker.isValidERC1271SignatureNowCalldata(earner, digest, signature)) {",
        "if (false) {",
    ),
    ("anybody's signature approves", "(signer == earner || signer == _operators[earner].operator);", "signer != address(0);"),
    ("the owner may be nobody", "Ownable(owner_)", "Ownable(owner_ == address(0) ? msg.sender : owner_)"),
    (
        "the sender gets the credit of another",
        "uint256 amount = creditOf[msg.sender];\n        if",
        "uint256 amount = creditOf[to];\n        if",
    ),
    ("a withdrawal to another goes to the caller", "to.call{value: amount}", "msg.sender.call{value: amount}"),
    ("credit is replaced instead of added", "creditOf[account] += amount;", "creditOf[account] = amount;"),
)
"""(what it does, text, instead): each text stands in the source."""

EQUIVALENT: Final = {
    "the lock of withdrawals is taken away": "the credit is zeroed before the ether leaves; the lock is a second door for whoever edits this next",  # noqa: E501  the text as it stands there
}
"""Mutants that nobody can tell from the contract, by name, each with the reason."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed source. `name` says where and what."""

    name: str
    source: str
    function: str = ""
    """In which it stands."""

    def files(self) -> list[str]:
        """The suite's files, the one most likely to notice first."""
        files = [path.name for path in sorted((ROOT / SUITE).glob("test_*.py")) if path.name not in BESIDE]
        own = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.function).lower()
        first = [f"test_{name}.py" for name in NEAREST.get(self.function, (own,))]
        return [str(SUITE / name) for name in sorted(files, key=lambda name: (name == LAST, name not in first))]


def derive_mutants(source: str) -> Iterator[Mutant]:
    """All of them, in the order of the source, those of HAND last."""
    lines = source.split("\n")
    begin = next(number for number, line in enumerate(lines) if line.startswith("contract "))
    function = ""
    for number in range(begin, len(lines)):
        if (head := re.match(r"    (?:function (\w+)|constructor)", lines[number])) is not None:
            function = head[1] or "constructor"
        for what, changed in _change_line(lines[number]):
            yield Mutant(f"{number + 1}: {what}", "\n".join([*lines[:number], changed, *lines[number + 1 :]]), function)
    for what, text, instead in HAND:
        if source.count(text) < 1:
            raise SystemExit(f"mutants.py: {what}: the source no longer has {text!r}")
        before = re.findall(r"^    function (\w+)", source[: source.index(text)], re.MULTILINE)
        yield Mutant(what, source.replace(text, instead, 1), before[-1] if before else "constructor")


def _change_line(line: str) -> Iterator[tuple[str, str]]:
    code = line.split("//", maxsplit=1)[0]
    text = code.strip()
    if not text or text.startswith(("/", "*", "import", "function", "mapping", "error", "event", "return keccak")):
        return
    for operator in (_drop, _shift_constants, _turn_comparisons, _turn_logic, _swap_states, _swap_money):
        for what, changed in operator(code, text):
            yield f"`{text}` {what}", changed


def _drop(code: str, text: str) -> Iterator[tuple[str, str]]:
    """A check, an event, a credit, a time that is kept, a modifier: not there."""
    checks = (r"if \(.*\) revert \w+\(.*\);$", r"_(onlyEarnerOrOperator|notAfter|onlyAfter)\(.*\);$", r"lease\.\w+At = ")
    if text.startswith(("emit ", "_credit(")) or any(re.match(check, text) for check in checks):
        yield "left out", ""
    for modifier in ("whenNotPaused", "onlyOwner"):
        if re.search(rf"\b{modifier}\b", text):
            yield f"without {modifier}", re.sub(rf" {modifier}\b", "", code)


def _shift_constants(code: str, text: str) -> Iterator[tuple[str, str]]:
    """A period by a second either way; a share or a size by one."""
    if (period := re.search(r"= (\d+) days;", text)) is not None:
        for sign in "+-":
            yield f"{sign} 1 s", code.replace(period[0], f"= {period[1]} days {sign} 1;")
    if (share := re.search(r"(STAKE_DIVISOR|MAX_REASON_BYTES) = (\d+);", text)) is not None:
        yield "and one more", code.replace(share[0], f"{share[1]} = {int(share[2]) + 1};")


def _turn_comparisons(code: str, text: str) -> Iterator[tuple[str, str]]:
    """The bound itself in or out, and the other way round."""
    if not text.startswith(("for", "unchecked")):
        for found in re.finditer(r" (>=|<=|==|!=|>|<) ", code):
            for instead in COMPARISONS[found[1]]:
                yield f"with {instead} at {found.start()}", f"{code[: found.start()]} {instead} {code[found.end() :]}"


def _turn_logic(code: str, text: str) -> Iterator[tuple[str, str]]:
    """All where one was enough; one where all were needed."""
    if text.startswith("//"):
        return
    for found in re.finditer(r" (&&|\|\|)(?= |$)", code):
        instead = "||" if found[1] == "&&" else "&&"
        yield f"with {instead} at {found.start()}", f"{code[: found.start()]} {instead}{code[found.end() :]}"


def _swap_states(code: str, text: str) -> Iterator[tuple[str, str]]:
    """Another status than the step leads to."""
    status = re.search(r"lease\.status = Status\.(\w+);", text)
    if status is not None and status[1] in STATUSES:
        yield f"as {STATUSES[status[1]]}", code.replace(status[1], STATUSES[status[1]])
    if "? Status.Refunded : Status.Settled" in text:
        yield "the other way round", code.replace("? Status.Refunded : Status.Settled", "? Status.Settled : Status.Refunded")


def _swap_money(code: str, text: str) -> Iterator[tuple[str, str]]:
    """To the other side; without the stake."""
    if "? lease.spender : lease.earner" in text:
        yield "the other way round", code.replace("? lease.spender : lease.earner", "? lease.earner : lease.spender")
    elif text.startswith("_credit(") and "lease.spender" in text:
        yield "to the Earner", code.replace("lease.spender", "lease.earner")
    if (total := re.search(r"lease\.price \+ (stake|_heldStake\(lease\))", text)) is not None:
        yield "without the stake", code.replace(total[0], "lease.price")


def compile_all(mutants: list[Mutant]) -> Iterator[tuple[Mutant, dict[str, object]]]:
    """Each mutant with its code, or with the compiler's error. One compiler for all of them."""
    by_name = {mutant.name: mutant for mutant in mutants}
    with tempfile.TemporaryFile("w+") as listed:
        json.dump([[mutant.name, mutant.source] for mutant in mutants], listed)
        listed.seek(0)
        process = subprocess.Popen(["node", "mutants.js"], cwd=HERE, stdin=listed, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            found = json.loads(line)
            yield by_name[found.pop("name")], found
        if process.wait() != 0:
            raise SystemExit("mutants.py: the compiler ended early; its words are above")


class Laboratory:
    """A copy of what the tests need, in which the artifact is another contract."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("daemon", "tests", "contracts/test", "benchmarks", "pyproject.toml"):
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules", "__pycache__", ".sandbox*"))
            else:
                shutil.copy(source, target)

    def kill(self, code: dict[str, object], files: list[str]) -> str | None:
        """The first test that notices; None: all pass."""
        artifact = json.loads((ROOT / ARTIFACT).read_text(encoding="utf-8"))
        (self.folder / ARTIFACT).write_text(json.dumps(artifact | code), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", *files]
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "daemon"), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.setdefault("PANDACEA_TEST_SCALE", "0.1")
        try:
            run = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {SECONDS} s"
        if run.returncode == 0:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
        if run.returncode != 1 or failed is None:
            raise SystemExit(f"mutants.py: the suite did not run:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
        return failed[1].split("::")[-1]


def judge_all(mutants: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, str, str]]:
    """Each mutant, how it ended ("compiler", "killed", "equivalent", "ALIVE"), and by what."""
    with tempfile.TemporaryDirectory(prefix="pandacea-mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        laboratories: Queue[Laboratory] = Queue()
        for number in range(jobs):
            laboratories.put(Laboratory(Path(folder) / str(number)))

        def judge(mutant: Mutant, code: dict[str, object]) -> tuple[Mutant, str, str]:
            if "error" in code:
                return mutant, "compiler", str(code["error"])
            laboratory = laboratories.get()
            try:
                killer = laboratory.kill(code, mutant.files())
            finally:
                laboratories.put(laboratory)
            if killer is not None:
                return mutant, "killed", killer
            return mutant, "equivalent" if mutant.name in EQUIVALENT else "ALIVE", EQUIVALENT.get(mutant.name, "")

        running: deque[Future[tuple[Mutant, str, str]]] = deque()
        for mutant, code in compile_all(mutants):
            running.append(pool.submit(judge, mutant, code))
            while running and running[0].done():
                yield running.popleft().result()
        for future in running:
            yield future.result()


def select_mutants(text: str) -> list[Mutant]:
    """Those whose name holds the text; each name is there once."""
    mutants = list(derive_mutants(SOURCE.read_text(encoding="utf-8")))
    if len({mutant.name for mutant in mutants}) != len(mutants):
        raise SystemExit("mutants.py: two mutants share a name")
    if unknown := EQUIVALENT.keys() - {mutant.name for mutant in mutants}:
        raise SystemExit(f"mutants.py: EQUIVALENT names what is not there: {sorted(unknown)}")
    return [mutant for mutant in mutants if text in mutant.name]


def main() -> None:
    """Kill them, and name those that live."""
    parser = argparse.ArgumentParser(description="Mutation testing of the contract.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="suites at a time")
    parser.add_argument("--only", default="", help="mutants whose name holds this text")
    parser.add_argument("--list", action="store_true", help="name them, and do nothing")
    arguments = parser.parse_args()
    mutants = select_mutants(arguments.only)
    if arguments.list:
        print(*(mutant.name for mutant in mutants), sep="\n")
        return
    outcomes: Counter[str] = Counter()
    alive: list[str] = []
    start = time.monotonic()
    for number, (mutant, outcome, why) in enumerate(judge_all(mutants, arguments.jobs), 1):
        outcomes[outcome] += 1
        if outcome == "ALIVE":
            alive.append(mutant.name)
        print(f"[{number}/{len(mutants)}] {outcome:10} {mutant.name}  {why}", flush=True)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{len(mutants)} mutants in {time.monotonic() - start:.0f} s: {counted}")
    if alive:
        print("Alive:", *alive, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main()

"""`make fresh`: run `make demo` on bare machines made here, to prove that the README's list of what is needed is complete.

A machine is a root made by debootstrap with what the README names and nothing else, and a clone of this commit. It has its own mount
and process namespaces, the network of this machine, no container engine and no control groups; pip and apt in it use this machine's own
settings. Nothing outside `.engine/fresh` is written, and nothing is left mounted or running, whatever ends the run.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = (ROOT / ".engine").resolve() / "fresh"
ENTER: Final = Path(__file__).with_name("enter")
NEEDED: Final = ("git", "make", "python3")
"""What the README names; debootstrap's minimal variant holds none of them."""
NAMESPACES: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")
"""Run a command in a mount and a process namespace that end with this program, even when it is killed."""
PIP_CACHE: Final = Path("/machine/pip-cache")
VISITOR: Final = "visitor"
VISITOR_UID: Final = 1000
UBUNTU_KEYRING: Final = "ubuntu-archive-keyring.gpg"
_STEP_SECONDS: Final = 1500
_PLACES_TO_WRITE: Final = {"cache-dir", "log", "prefix", "python", "require-virtualenv", "root", "target", "user"}
"""pip's settings that say where this machine's packages, caches and logs go."""


@dataclass(frozen=True, slots=True)
class Suite:
    """One release of a distribution."""

    name: str
    title: str
    keyring: str
    components: str = "main"


SUITES: Final = {
    "bookworm": Suite("bookworm", "Debian 12", "debian-archive-keyring.gpg"),
    "trixie": Suite("trixie", "Debian 13", "debian-archive-keyring.gpg"),
    "noble": Suite("noble", "Ubuntu 24.04", UBUNTU_KEYRING, "main,universe"),
}
REGULAR: Final = f"bookworm:root,bookworm:{VISITOR},trixie:{VISITOR}"
"""What a run without `--rows` plays: the README's oldest Python and its newest, within five minutes on two quiet processors."""


class StepFailed(Exception):
    """A command failed; the message holds its last lines."""


def run(command: Sequence[str | Path], log: Path) -> str:
    """Run a command to its end and return what it printed, which is appended to `log` too.

    Raises:
        StepFailed: its status is not 0, or it took longer than 25 minutes.
    """
    begun = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, timeout=_STEP_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailed(f"{command[0]} did not end within {_STEP_SECONDS} s; see {log}") from error
    with log.open("rb") as output:
        output.seek(begun)
        printed = output.read().decode(errors="replace")
    if done.returncode != 0:
        last = "\n".join(printed.splitlines()[-15:])
        raise StepFailed(f"status {done.returncode}; the last lines of {log}:\n{last}")
    return printed


class Machine:
    """One bare root, entered as often as wanted."""

    def __init__(self, folder: Path, log: Path, mounts: Mapping[Path, Path], variables: Mapping[str, str]) -> None:
        """`mounts`: places of this machine and where they are seen in the root, read-only but for pip's cache."""
        self.folder = folder
        self._log = log
        self._mounts = [
            word for source, target in mounts.items() for word in ("rw" if target == PIP_CACHE else "ro", str(source), str(target))
        ]
        self._variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **variables}

    def run(self, line: str, user: str = "root") -> str:
        """Run a shell command in the home folder of `user`, with nothing of this process's environment, and return what it printed."""
        home = "/root" if user == "root" else f"/home/{user}"
        variables = [f"{name}={value}" for name, value in {**self._variables, "HOME": home, "USER": user}.items()]
        become = [] if user == "root" else ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        command = ["env", "-i", *variables, *become, "sh", "-c", f"cd {home} && {line}"]
        return run([*NAMESPACES, ENTER, self.folder, *self._mounts, "--", *command], self._log)


def machine_pip_settings() -> tuple[dict[str, str], dict[Path, Path]]:
    """Return pip's settings on this machine as variables for another root, and the files and folders they name, to be mounted there."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for section, name, value in re.findall(r"^(\S+?)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE):
        if name not in _PLACES_TO_WRITE and (section == ":env:" or name not in found):
            found[name] = value.replace("\\n", " ")
    mounts: dict[Path, Path] = {}
    for name, value in found.items():
        words = []
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if not path.is_absolute() or not path.exists():
                words.append(word)
                continue
            # An index on disk keeps its files beside its pages: the folder above is wanted too.
            mounted = path.parent if word.startswith("file://") and path.parent != Path("/") else path
            mounts[mounted] = Path(f"/machine{mounted}")
            words.append(word.replace(str(path), f"/machine{path}"))
        found[name] = " ".join(words)
    variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in found.items()}
    proxies = {name: value for name, value in os.environ.items() if name.lower() in {"http_proxy", "https_proxy", "no_proxy"}}
    return variables | proxies, mounts


def machine_apt_settings() -> str:
    """Return how this machine's apt reaches its mirrors (proxies, certificates, checks), as a configuration file."""
    lines = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False).stdout.splitlines()
    return "".join(f"{line}\n" for line in lines if not line.startswith("Acquire::IndexTargets"))


def machine_mirror(suite: Suite) -> list[str]:
    """Return the mirror that this machine's apt uses for the suite; nothing where it has none, for debootstrap's own."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {suite.name}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()[:1]


def find_keyring(suite: Suite) -> Path:
    """Return the file of the keys that sign the suite: this machine's, else the one kept from the package in Debian 13.

    Raises:
        StepFailed: there is neither.
    """
    places = [folder / suite.keyring for folder in (Path("/usr/share/keyrings"), CACHE)]
    for place in places:
        if place.exists():
            return place
    raise StepFailed(f"{places[0]} is missing; install its package, or run `make fresh` for trixie once, which keeps it")


def make_root(suite: Suite, folder: Path) -> None:
    """Make a root that holds what the README names."""
    packages = CACHE / f"packages-{suite.name}"
    packages.mkdir(exist_ok=True)
    options = ["--variant=minbase", f"--cache-dir={packages}", f"--components={suite.components}", f"--include={','.join(NEEDED)}"]
    keyring = f"--keyring={find_keyring(suite)}"
    run(
        [*NAMESPACES, "debootstrap", *options, keyring, suite.name, folder, *machine_mirror(suite)], CACHE / f"log/{suite.name}.log"
    )
    (folder / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (folder / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copy(Path("/etc/resolv.conf").resolve(), folder / "etc/resolv.conf")
    (folder / "etc/apt/apt.conf.d/99machine").write_text(machine_apt_settings())


@contextmanager
def copy_machine(suite: Suite, pristine: Path, user: str) -> Iterator[Machine]:
    """Copy the pristine root; the copy is removed at the end."""
    folder = CACHE / f"root-{suite.name}-{user}"
    log = CACHE / f"log/{suite.name}-{user}.log"
    variables, mounts = machine_pip_settings()
    pip = CACHE / f"pip-{suite.name}-{user}"
    pip.mkdir(exist_ok=True)
    if user != "root":
        os.chown(pip, VISITOR_UID, VISITOR_UID)
    mounts |= {pip: PIP_CACHE, CACHE / "commit.bundle": Path("/machine/commit.bundle")}
    try:
        run(["cp", "-a", pristine, folder], log)
        yield Machine(folder, log, mounts, variables | {"PIP_CACHE_DIR": str(PIP_CACHE)})
    finally:
        shutil.rmtree(folder)


def run_demo(machine: Machine, user: str) -> dict[str, str]:
    """Clone the commit and run `make demo`; a plain user is told what root must install first, and that alone is installed."""
    if user != "root":
        machine.run(f"useradd --create-home --uid {VISITOR_UID} {user}")
    machine.run("git clone --quiet /machine/commit.bundle pandacea", user)
    if user != "root":
        asked = machine.run("cd pandacea && if make demo; then echo 'It ran without bubblewrap?'; exit 1; fi", user)
        commands = re.search(r"sudo (apt-get update) && sudo (apt-get install .*)", asked)
        if commands is None:
            raise StepFailed(f"a plain user is not told what to install:\n{asked[-1000:]}")
        machine.run(f"{commands[1]} -qq && DEBIAN_FRONTEND=noninteractive {commands[2]} -qq")
    said = machine.run("cd pandacea && make demo", user)
    engine = re.search(r"sandbox: (\S+)", said)
    if "Every step held." not in said or engine is None:
        raise StepFailed(f"the demo ended with status 0 and without its last line:\n{said[-1000:]}")
    lock = json.loads(machine.run("cat pandacea/.sandbox/pandacea-environment.json", user))
    torch = next(package for package in lock["packages"] if package.startswith("torch=="))
    return {"python": lock["python"], "engine": engine[1], "ran": f"make demo with {torch} and {len(lock['packages']) - 1} more"}


def check_test_packages(machine: Machine, user: str) -> str:
    """See that every package `make test` would install can be installed, together, on this release."""
    said = machine.run("cd pandacea && sh .ci/system-packages --simulate test", user)
    return f"make test could install its {len(re.findall('^Inst ', said, re.MULTILINE))} packages"


def bundle_commit() -> str:
    """Bundle the commit for the clones, and return its name; say what is not in it."""
    log = CACHE / "log/prepare.log"
    git = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}"]
    run([*git, "bundle", "create", "--quiet", CACHE / "commit.bundle", "HEAD"], log)
    name = run([*git, "log", "-1", "--format=%h %s"], log).strip()
    changed = run([*git, "status", "--porcelain", "--untracked-files=no"], log).splitlines()
    return name + (f" ({len(changed)} changed files are not in it)" if changed else "")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    suite: str
    python: str
    user: str
    engine: str
    result: str
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells as text."""
        return (self.suite, self.python, self.user, self.engine, self.result, f"{self.seconds:.0f}")


def try_suite(suite: Suite, users: Sequence[str]) -> list[Row]:
    """Make a root of the suite, and run the demo in a copy of it for each user."""
    pristine = CACHE / f"root-{suite.name}"
    begun = time.monotonic()
    try:
        make_root(suite, pristine)
    except StepFailed as error:
        say(f"{suite.title}: {error}")
        return [Row(suite.title, "?", "-", "-", "FAILED: no root", time.monotonic() - begun)]
    say(f"{suite.title}: a root with {', '.join(NEEDED)}, made in {time.monotonic() - begun:.0f} s; now make demo in it ...")
    try:
        return [try_user(suite, pristine, user) for user in users]
    finally:
        shutil.rmtree(pristine)


def try_user(suite: Suite, pristine: Path, user: str) -> Row:
    """Run the demo in a copy of the root, and see that the packages of `make test` could be installed there."""
    begun = time.monotonic()
    found = {"python": "?", "engine": "?"}
    try:
        with copy_machine(suite, pristine, user) as machine:
            found = run_demo(machine, user)
            result = f"ok: {found['ran']}; {check_test_packages(machine, user)}"
            if suite.name == "trixie" and not (CACHE / UBUNTU_KEYRING).exists():
                machine.run("apt-get install -y -qq --no-install-recommends ubuntu-keyring")
                shutil.copy(machine.folder / "usr/share/keyrings" / UBUNTU_KEYRING, CACHE)
    except StepFailed as error:
        say(f"{suite.title}, {user}: {error}")
        result = "FAILED"
    row = Row(suite.title, found["python"], user, found["engine"], result, time.monotonic() - begun)
    say(f"{suite.title}, {user}: {result.partition(':')[0]} after {row.seconds:.0f} s")
    return row


def main() -> int:
    """Make the machines, run the demo on each, print the table."""
    parser = argparse.ArgumentParser(prog="make fresh", description="Run make demo on bare Debian and Ubuntu machines.")
    parser.add_argument("--rows", default=REGULAR, help=f"SUITE:USER,...; suites: {', '.join(SUITES)}; default: %(default)s")
    users: dict[str, list[str]] = {}
    for row in parser.parse_args().rows.split(","):
        suite, _, user = row.partition(":")
        if suite not in SUITES or user not in {"root", VISITOR}:
            parser.error(f"{row!r} is no row: SUITE:root or SUITE:{VISITOR}, suites: {', '.join(SUITES)}")
        users.setdefault(suite, []).append(user)
    if os.geteuid() != 0:
        say("Only root can make the root of another release. Run:\n    sudo make fresh")
        return 2
    (CACHE / "log").mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run, from this checkout or one that shares its cache, ends first
        for left in [*CACHE.glob("root-*"), *CACHE.glob("log/*")]:  # of a run that was killed: its mounts went with it
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        run(["sh", ROOT / ".ci/system-packages", "fresh"], CACHE / "log/prepare.log")
        run([*NAMESPACES, "true"], CACHE / "log/prepare.log")
        say(f"Commit {bundle_commit()}. Logs: {CACHE / 'log'}")
        # Two at a time: one waits for its downloads while the other unpacks.
        with ThreadPoolExecutor(2) as pool:
            rows = [row for made in pool.map(lambda name: try_suite(SUITES[name], users[name]), users) for row in made]
    table = [("root", "Python", "user", "engine", "result", "seconds"), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(6)]
    for line in table:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0 if all(row.result.startswith("ok") for row in rows) else 1


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StepFailed as problem:
        sys.exit(str(problem))

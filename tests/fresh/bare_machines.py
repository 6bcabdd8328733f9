"""`make fresh`: run `make demo` on bare Debian and Ubuntu machines, made here, to prove that README's list of what is needed is complete.

A machine is a root made by debootstrap with what the README names and nothing else, and a clone of this commit. It has its own mount
and process namespaces, the network of this machine, no container engine and no control groups; pip and apt in it use this machine's own
settings. Nothing outside `.engine/fresh` is written, and nothing is left mounted or running.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = (ROOT / ".engine").resolve() / "fresh"
ENTER: Final = Path(__file__).with_name("enter")
NEEDED: Final = ("git", "make", "python3", "python3-venv")
"""What the README names; debootstrap's minimal variant holds none of them."""
VISITOR: Final = "visitor"
VISITOR_UID: Final = 1000
_STEP_SECONDS: Final = 1500
_NOT_FOR_OTHERS: Final = {"cache-dir", "log", "prefix", "python", "require-virtualenv", "root", "target", "user"}
"""Settings of pip that name places of this machine to write to."""


@dataclass(frozen=True, slots=True)
class Suite:
    """One release of a distribution."""

    name: str
    title: str
    keyring: str
    components: str = "main"


SUITES: Final = (
    Suite("bookworm", "Debian 12", "debian-archive-keyring"),
    Suite("noble", "Ubuntu 24.04", "ubuntu-archive-keyring", "main,universe"),
    Suite("trixie", "Debian 13", "debian-archive-keyring"),
)


class StepFailed(Exception):
    """A command failed; the message holds its last lines."""


def run(command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed, which is appended to `log` too.

    Raises:
        StepFailed: its status is not 0, or it took longer than 25 minutes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, env=environment, timeout=_STEP_SECONDS
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

    def __init__(self, folder: Path, log: Path, mounts: Mapping[Path, Path], environment: Mapping[str, str]) -> None:
        """`mounts`: places of this machine and where they are seen in the root."""
        self.folder = folder
        self._log = log
        self._mounts = dict(mounts)
        self._environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **environment}

    def run(self, line: str, user: str = "root", **environment: str) -> str:
        """Run a shell command in the home folder of `user` with nothing of this process's environment."""
        home = "/root" if user == "root" else f"/home/{user}"
        settings = [f"{name}={value}" for name, value in {**self._environment, **environment, "HOME": home, "USER": user}.items()]
        become = [] if user == "root" else ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        command = ["env", "-i", *settings, *become, "sh", "-c", f"cd {home} && {line}"]
        mounts = [str(place) for pair in self._mounts.items() for place in pair]
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return run([*own, str(ENTER), str(self.folder), *mounts, "--", *command], self._log)


def machine_pip_settings() -> tuple[dict[str, str], dict[Path, Path]]:
    """Return pip's settings on this machine as variables for another root, and the files and folders they name, to be mounted there."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for section, name, value in re.findall(r"^(\S+?)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE):
        if name not in _NOT_FOR_OTHERS and (section == ":env:" or name not in found):
            found[name] = value.encode().decode("unicode_escape")
    mounts: dict[Path, Path] = {}
    for name, value in found.items():
        words = []
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # An index on disk keeps its files beside its pages, so that the folder above is wanted too.
                mounted = path.parent if word.startswith("file://") and path.parent != Path("/") else path
                mounts[mounted] = Path("/machine") / mounted.relative_to("/")
                word = word.replace(str(path), f"/machine{path}")  # noqa: PLW2901
            words.append(word)
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


def make_root(suite: Suite, folder: Path, log: Path) -> None:
    """Make a root that holds what the README names."""
    packages = CACHE / f"packages-{suite.name}"
    packages.mkdir(parents=True, exist_ok=True)
    options = ["--variant=minbase", f"--cache-dir={packages}", f"--components={suite.components}", f"--include={','.join(NEEDED)}"]
    keyring = f"--keyring=/usr/share/keyrings/{suite.keyring}.gpg"
    # In a mount namespace of its own: what debootstrap mounts in the root is gone with it, whatever ends it.
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    run([*own, "debootstrap", *options, keyring, suite.name, folder, *machine_mirror(suite)], log)
    (folder / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (folder / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copy(Path("/etc/resolv.conf").resolve(), folder / "etc/resolv.conf")
    (folder / "etc/apt/apt.conf.d/99machine").write_text(machine_apt_settings())


@contextmanager
def new_machine(suite: Suite, pristine: Path, user: str) -> Iterator[Machine]:
    """Copy the pristine root; the copy is removed at the end."""
    folder = CACHE / f"root-{suite.name}-{user}"
    shutil.rmtree(folder, ignore_errors=True)
    run(["cp", "-a", pristine, folder], CACHE / "log" / f"{suite.name}-{user}.log")
    variables, mounts = machine_pip_settings()
    pip = CACHE / f"pip-{suite.name}-{user}"
    pip.mkdir(exist_ok=True)
    if user != "root":
        os.chown(pip, VISITOR_UID, VISITOR_UID)
    commit = CACHE / "commit.bundle"
    mounts |= {pip: Path("/machine/pip-cache"), commit: Path("/machine/commit.bundle")}
    try:
        yield Machine(folder, CACHE / "log" / f"{suite.name}-{user}.log", mounts, variables | {"PIP_CACHE_DIR": "/machine/pip-cache"})
    finally:
        shutil.rmtree(folder)


def run_demo(machine: Machine, user: str) -> dict[str, str]:
    """Clone the commit and run `make demo`; a plain user is told what root must install first, and it is just that which is installed."""
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
    if "Every step held." not in said:
        raise StepFailed(f"the demo ended with status 0 and without its last line:\n{said[-1000:]}")
    lock = json.loads(machine.run("cat pandacea/.sandbox/pandacea-environment.json", user))
    engine = re.search(r"sandbox: (\S+)", said)
    torch = next(package for package in lock["packages"] if package.startswith("torch=="))
    return {"python": lock["python"], "engine": engine[1] if engine else "?", "ran": f"make demo ({torch}, {len(lock['packages'])} packages)"}


def check_test_packages(machine: Machine) -> str:
    """See that every Debian package `make test` would install can be installed together on this release."""
    machine.run("apt-get update -qq")
    said = machine.run("cd pandacea && sh .ci/system-packages --simulate test")
    return f"{len(re.findall('^Inst ', said, re.MULTILINE))} packages for make test can be installed"


def prepare(commit: str) -> str:
    """Bundle the commit, and return its name; say what is not in it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / "log" / "prepare.log"
    shutil.rmtree(log.parent, ignore_errors=True)
    git = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}"]
    run([*git, "bundle", "create", "--quiet", CACHE / "commit.bundle", commit], log)
    name = run([*git, "log", "-1", "--format=%h %s", commit], log).strip()
    changed = run([*git, "status", "--porcelain", "--untracked-files=no"], log).splitlines()
    return name + (f"; {len(changed)} changed files are not in it" if changed else "")


def main() -> int:
    """Make the machines, run the demo on each, print the table."""
    parser = argparse.ArgumentParser(description="Run make demo on bare Debian and Ubuntu machines.")
    parser.add_argument("--suites", default=",".join(suite.name for suite in SUITES))
    parser.add_argument("--users", default=f"root,{VISITOR}")
    parser.add_argument("--commit", default="HEAD")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print(f"Making a root needs root. Run:\n    sudo {shlex.join([sys.executable, *sys.argv])}", file=sys.stderr)  # noqa: T201
        return 2
    say(f"Commit {prepare(asked.commit)}. Logs: {CACHE / 'log'}")
    rows = [("root", "Python", "user", "engine", "result", "seconds")]
    failed = False
    for suite in SUITES:
        if suite.name not in asked.suites.split(","):
            continue
        pristine = CACHE / f"root-{suite.name}"
        shutil.rmtree(pristine, ignore_errors=True)
        try:
            begun = time.monotonic()
            say(f"{suite.title}: making a root with {', '.join(NEEDED)} ...")
            make_root(suite, pristine, CACHE / "log" / f"{suite.name}.log")
            say(f"{suite.title}: made in {time.monotonic() - begun:.0f} s")
            for user in asked.users.split(","):
                begun = time.monotonic()
                found = {"python": "?", "engine": "?"}
                try:
                    with new_machine(suite, pristine, user) as machine:
                        say(f"{suite.title}, {user}: make demo ...")
                        found = run_demo(machine, user)
                        if user == "root":
                            found["ran"] += f"; {check_test_packages(machine)}"
                    result = f"ok: {found['ran']}"
                except StepFailed as error:
                    failed = True
                    result = "FAILED"
                    say(f"{suite.title}, {user}: {error}")
                rows.append((suite.title, found["python"], user, found["engine"], result, f"{time.monotonic() - begun:.0f}"))
        except StepFailed as error:
            failed = True
            say(f"{suite.title}: {error}")
            rows.append((suite.title, "?", "-", "-", "FAILED: no root", f"{time.monotonic() - begun:.0f}"))
        finally:
            shutil.rmtree(pristine, ignore_errors=True)
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 1 if failed else 0


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

"""The demo is the first thing a newcomer sees: it must hold."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.prerequisites import ROOT, skip_or_fail
from tests.sandbox.leftovers import processes


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the whole story once."""
    if not (ROOT / ".sandbox" / "bin" / "python").exists():
        skip_or_fail("no sandbox environment; run: make setup")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=200)


def test_every_step_of_the_story_holds(sandbox: str) -> None:
    """Exit status 0, the hash read back from the chain, and no process left behind."""
    done = demo("--sandbox", sandbox)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "committedResult = 0x" in done.stdout
    assert "equal, byte for byte, to what the chain has as 0x" in done.stdout
    assert "Every step held." in done.stdout
    assert processes(Path(tempfile.gettempdir(), "pandacea-demo-")) == {}


def test_the_story_runs_on_a_table_of_ones_own(tmp_path: Path) -> None:
    """`make demo ARGS="--csv FILE --features a,b --label y"`."""
    table = tmp_path / "mine.csv"
    table.write_text("a,b,name,y\n" + "".join(f"{n},{n % 3},p{n},{2 * n}\n" for n in range(60)))
    done = demo("--csv", str(table), "--features", "a,b", "--label", "y", "--sandbox", "bubblewrap")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained on 60 rows x 2 features" in done.stdout


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    """One sentence, with the columns that are."""
    table = tmp_path / "mine.csv"
    table.write_text("a,b,y\n1,2,3\n")
    done = demo("--csv", str(table), "--features", "a,c", "--label", "y", "--sandbox", "bubblewrap")
    assert done.returncode == 1
    assert "no column c; it has: a, b, y" in done.stderr


def demo_in(namespace: list[str], script: str) -> subprocess.CompletedProcess[str]:
    """Run the story with `auto` in a namespace of its own, prepared by a shell script."""
    if not (ROOT / ".sandbox" / "bin" / "python").exists():
        skip_or_fail("no sandbox environment; run: make setup")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    line = ["unshare", *namespace, "sh", "-c", f'{script} && exec "$@"', "sh", sys.executable, str(ROOT / "examples" / "demo.py")]
    environment["PYTHONPATH"] = str(ROOT / "daemon")
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=200)


def test_the_story_holds_on_a_machine_without_an_engine() -> None:
    """No socket, no DOCKER_HOST, whatever this machine has: `auto` takes bubblewrap."""
    done = demo_in(["--mount"], "mount -t tmpfs tmpfs /run && export HOME=/run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sandbox: bubblewrap" in done.stdout
    assert "Every step held." in done.stdout


def test_on_a_machine_without_engine_and_namespaces_the_story_says_what_to_run() -> None:
    """Both ways out, at once instead of after a minute's wait."""
    script = "mount -t tmpfs tmpfs /run && export HOME=/run && echo 0 >/proc/sys/user/max_user_namespaces"
    done = demo_in(["--user", "--map-root-user", "--mount"], script + ' && set -- setpriv --bounding-set=-all --inh-caps=-all "$@"')
    assert done.returncode == 1
    assert "the node did not start" in done.stderr, done.stdout + done.stderr
    assert "echo user.max_user_namespaces=15000 | sudo tee" in done.stderr
    assert "set privacy.sandbox: docker" in done.stderr

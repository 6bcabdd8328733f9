"""Building the sandbox's packages where things go wrong in the middle: what was downloaded is kept, and the next run mends the rest."""

from __future__ import annotations

import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pandacea.errors import Broken
from pandacea.sandbox.environments import pip
from pandacea.sandbox.environments.build import build_environment
from tests.prerequisites import ROOT, skip_or_fail

NAMES = ("alpha", "beta", "gamma")
BUILD = (
    "import sys; from pathlib import Path; from pandacea.sandbox.environments.build import build_environment; "
    "build_environment(*map(Path, sys.argv[1:]))"
)


def wheel(name: str, size: int = 0) -> bytes:
    """A package of one module and, where `size` says so, a file that no compression makes small."""
    made = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{name}.bin", os.urandom(size))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{name}.bin,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return made.getvalue()


class Index:
    """A package index on loopback. `trouble`: called with the request's handler and the package; True when it has answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.trouble: Callable[[http.server.BaseHTTPRequestHandler, str], bool] = lambda _handler, _name: False
        self.wheels = {name: wheel(name) for name in NAMES}
        self.files = {name: f"{name}-1.0-py3-none-any.whl" for name in NAMES}
        self.url = ""


@contextmanager
def serving() -> Iterator[Index]:
    """Serve a package index until the test ends."""
    index = Index()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").split("/")[-1].split("-")[0]
            if self.path.endswith(".whl"):
                if name != "pip":
                    index.asked.append(name)
                if index.trouble(self, name):
                    return
                self.answer(index.wheels[name], "application/octet-stream")
            elif name not in index.files:
                self.send_error(404)
            elif self.path.endswith(".metadata"):
                self.answer(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(), "text/plain")
            else:
                data = ' data-dist-info-metadata="true" data-core-metadata="true"' if name != "pip" else ""
                link = f'<a href="/files/{index.files[name]}"{data}>{index.files[name]}</a>'
                self.answer(link.encode(), "text/html")

        def answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing of a request."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield index
        server.shutdown()


@pytest.fixture(scope="session")
def newest_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pip's own wheel, as this machine's index serves it."""
    folder = tmp_path_factory.mktemp("pip")
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "pip>=25.1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(f"no package index answers: {done.stderr[-300:]}")
    return next(folder.glob("pip-*.whl"))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, newest_pip: Path) -> Iterator[Index]:
    """The only index that pip knows; one package in each run, and no cache that would hide what is asked for."""
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with serving() as made:
        made.files["pip"], made.wheels["pip"] = newest_pip.name, newest_pip.read_bytes()
        settings = {"CONFIG_FILE": os.devnull, "INDEX_URL": f"{made.url}/simple", "NO_CACHE_DIR": "1", "RETRIES": "1"}
        for name, value in settings.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        monkeypatch.setattr(pip, "_PACKAGES_PER_RUN", 1)
        yield made


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """Write requirements of three packages."""
    path = tmp_path / "requirements.txt"
    path.write_text("".join(f"{name}==1.0\n" for name in NAMES))
    return path


def test_a_first_run_says_how_far_it_is_and_a_second_one_nothing(index: Index, requirements: Path, tmp_path: Path) -> None:
    """Which of how many, at which version; no word of pip's about its indexes and links, however many are configured."""
    os.environ["PIP_EXTRA_INDEX_URL"] = f"{index.url}/more {index.url}/third"
    os.environ["PIP_FIND_LINKS"] = str(tmp_path)
    said: list[str] = []
    try:
        made = build_environment(tmp_path / "env", requirements, said.append)
        assert made.packages == ("alpha==1.0", "beta==1.0", "gamma==1.0")
        assert [line for line in said if "/3]" in line] == ["  [1/3] alpha 1.0", "  [2/3] beta 1.0", "  [3/3] gamma 1.0"]
        assert not any("Looking" in line or "http" in line for line in said), said
        assert not (tmp_path / "env.wheels").exists()
        said.clear()
        index.asked.clear()
        assert build_environment(tmp_path / "env", requirements, said.append) == made
        assert (said, index.asked) == ([], [])
    finally:
        del os.environ["PIP_EXTRA_INDEX_URL"], os.environ["PIP_FIND_LINKS"]


def break_off(handler: http.server.BaseHTTPRequestHandler, name: str) -> bool:
    """The connection ends in the middle of gamma's file."""
    if name != "gamma":
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b"PK")
    return True


def refuse(handler: http.server.BaseHTTPRequestHandler, name: str) -> bool:
    """The index is overloaded when gamma is asked for."""
    if name == "gamma":
        handler.send_error(503)
    return name == "gamma"


@pytest.mark.parametrize("trouble", [break_off, refuse])
def test_a_download_that_breaks_is_continued_by_the_next_run(
    index: Index, requirements: Path, tmp_path: Path, trouble: Callable[[http.server.BaseHTTPRequestHandler, str], bool]
) -> None:
    """One sentence with what to do; then only what is missing is asked for again."""
    index.trouble = trouble
    with pytest.raises(Broken) as caught:
        build_environment(tmp_path / "env", requirements, lambda _: None)
    assert "the package index does not answer, or the download was interrupted" in str(caught.value), caught.value
    assert "run the same command again: what was downloaded is kept" in str(caught.value)
    index.trouble = lambda _handler, _name: False
    index.asked.clear()
    said: list[str] = []
    made = build_environment(tmp_path / "env", requirements, said.append)
    assert len(made.packages) == 3
    assert index.asked == ["gamma"]
    assert "2 of 3 packages were downloaded before" in said


def test_an_index_that_answers_503_once_is_asked_again(index: Index, requirements: Path, tmp_path: Path) -> None:
    """Within the same run."""
    refused: list[str] = []

    def once(handler: http.server.BaseHTTPRequestHandler, name: str) -> bool:
        if name == "beta" and not refused:
            refused.append(name)
            handler.send_error(503)
            return True
        return False

    index.trouble = once
    assert len(build_environment(tmp_path / "env", requirements, lambda _: None).packages) == 3
    assert refused == ["beta"]


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"])
def test_without_a_network_one_sentence(
    index: Index, requirements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """Also where a proxy is configured that is not there: no stack, no retries' warnings."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple" if not proxy else "https://index.invalid/simple")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(Broken) as caught:
        build_environment(tmp_path / "env", requirements, lambda _: None)
    assert "the proxy (HTTPS_PROXY) and the index (PIP_INDEX_URL)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_that_is_killed_is_mended_by_the_next(index: Index, requirements: Path, tmp_path: Path) -> None:
    """Sent SIGKILL while the last package is on its way."""
    reached, killed = threading.Event(), threading.Event()

    def wait(_handler: http.server.BaseHTTPRequestHandler, name: str) -> bool:
        if name != "gamma":
            return False
        reached.set()
        killed.wait(60)
        return True

    index.trouble = wait
    program = f"import pandacea.sandbox.environments.pip as p; p._PACKAGES_PER_RUN = 1; {BUILD}"
    line = [sys.executable, "-c", program, str(tmp_path / "env"), str(requirements)]
    process = subprocess.Popen(line, env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")}, process_group=0)
    try:
        assert reached.wait(120)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        killed.set()
    index.trouble = lambda _handler, _name: False
    index.asked.clear()
    said: list[str] = []
    assert len(build_environment(tmp_path / "env", requirements, said.append).packages) == 3
    assert any("incomplete" in line for line in said)
    assert index.asked == ["gamma"]


@pytest.mark.parametrize(
    ("case", "words"), [("gone", "is missing: building it again"), ("other", "was built with Python 3.8, and this is")]
)
def test_another_python_than_last_time(index: Index, requirements: Path, tmp_path: Path, case: str, words: str) -> None:
    """The interpreter was removed, or its minor version changed: the environment is made again, and that is said."""
    folder = tmp_path / "env"
    build_environment(folder, requirements, lambda _: None)
    (folder / "bin" / "python").unlink()
    if case == "gone":
        (folder / "bin" / "python").symlink_to("/nowhere/bin/python3")
    else:
        (folder / "bin" / "python").write_text("#!/bin/sh\necho 3.8\n")
        (folder / "bin" / "python").chmod(0o755)
    said: list[str] = []
    assert len(build_environment(folder, requirements, said.append).packages) == 3
    assert any(words in line for line in said), said


def test_a_full_disk_is_one_sentence_with_the_size(index: Index, requirements: Path, tmp_path: Path) -> None:
    """A file system of the test's own, too small for the last package."""
    index.wheels["gamma"] = wheel("gamma", 60 << 20)
    program = f"from pandacea.errors import Broken\ntry:\n    exec({BUILD!r})\nexcept Broken as error:\n    print(error)"
    folder = tmp_path / "small"
    folder.mkdir()
    script = 'mount -t tmpfs -o size=60m tmpfs "$1" && shift && exec "$@"'
    line = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder)]
    line += [sys.executable, "-c", program, str(folder / "env"), str(requirements)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")})
    last = done.stdout.splitlines()[-1]
    assert "the disk is full: the sandbox's environment needs about 3.5 GB while it is built" in last, done.stdout + done.stderr
    assert "free some, then run the same command again" in last
    shutil.rmtree(folder)


def test_in_a_folder_with_spaces_and_unicode(index: Index, requirements: Path, tmp_path: Path) -> None:
    """As a home folder may be named."""
    assert len(build_environment(tmp_path / "ein Ördner, mit Raum" / "env", requirements, lambda _: None).packages) == 3

"""Environments: pinned, locked, named by what is in them; adding makes a new one beside the old."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import aiodocker
import pytest

from pandacea.errors import Broken, Refused
from pandacea.sandbox.docker.image import read_image_lock
from pandacea.sandbox.environments import lock
from pandacea.sandbox.environments.add import add_packages
from pandacea.sandbox.environments.build import Environment, build_environment, default_requirements, read_environment
from pandacea.sandbox.environments.image import add_to_image
from tests.prerequisites import skip_or_fail
from tests.sandbox.harness import close_laboratory, open_laboratory

SMALL = "toolz==1.0.0\n"


def test_the_shipped_list_is_pinned() -> None:
    """Every line names one version, and no address or hash that would tie it to one index or disk."""
    lines = [line for line in default_requirements().read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.count("==") == 1 and "://" not in line and "hash" not in line for line in lines)
    assert {line.split("==")[0] for line in lines} >= {"torch", "pandas", "pyarrow", "numpy", "scikit-learn", "syft"}


def test_identity_depends_on_packages_and_python_only() -> None:
    """The same lock has the same name anywhere, whatever the order; another version is another name."""
    one = lock.identity("3.11.7", ["b==2", "a==1"])
    assert one == lock.identity("3.11.7", ["a==1", "b==2"])
    assert one != lock.identity("3.11.7", ["a==1", "b==3"])
    assert one != lock.identity("3.12.0", ["a==1", "b==2"])


def test_modules_of_an_environment_are_known(tmp_path: Path) -> None:
    """From the lock; where an earlier build's lock does not name them, from the folder. Metadata and libraries are no modules."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("sklearn", "scikit_learn.libs", "scikit_learn-1.9.1.dist-info", "__pycache__"):
        (packages / name).mkdir(parents=True)
    for name in ("six.py", "_cffi.cpython-311-x86_64-linux-gnu.so", "distutils-precedence.pth"):
        (packages / name).touch()
    names = ["_cffi", "six", "sklearn"]
    assert lock.list_modules(str(packages)) == names
    written = {"python": "3.11.7", "base_prefix": "/usr", "interpreter": sys.executable, "packages": ["six==1"]}
    (tmp_path / "pandacea-environment.json").write_text(json.dumps(written))
    assert list(read_environment(tmp_path).modules) == names
    (tmp_path / "pandacea-environment.json").write_text(json.dumps(written | {"modules": ["six"]}))
    assert read_environment(tmp_path).modules == ("six",)


def test_build_then_add(tmp_path: Path) -> None:
    """Building writes the lock; building again changes nothing; adding leaves the old environment as it was."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(SMALL)
    said: list[str] = []
    try:
        first = build_environment(tmp_path / "env", requirements, said.append)
    except Broken as error:
        skip_or_fail(f"no package index answers: {error.detail[-300:]}")
    assert first.packages == ("toolz==1.0.0",)
    assert build_environment(tmp_path / "env", requirements, said.append).identity == first.identity
    second = add_packages(tmp_path / "env", ["attrs"], said.append)
    assert second.folder == tmp_path / "env-2"
    assert "toolz==1.0.0" in second.packages
    assert any(package.startswith("attrs==") for package in second.packages)
    assert second.identity != first.identity
    assert read_environment(tmp_path / "env").identity == first.identity
    compiled = list((second.folder / "lib").glob("python*/site-packages/attr/__pycache__/*.pyc"))
    assert compiled, "a sandbox's root is read-only: modules are compiled beforehand"


@pytest.fixture
async def same(image: str, environment: Path) -> Environment:
    """An environment of the image's packages: this machine's own is of another Python or another day, and may hold others."""
    async with aiodocker.Docker() as engine:
        packages = json.loads(await read_image_lock(engine, image, "test"))["packages"]
    return replace(read_environment(environment), packages=tuple(packages))


@pytest.mark.asyncio
async def test_an_image_of_the_same_packages(image: str, environment: Path, same: Environment) -> None:
    """Built on top of the old one, without network: a script finds the new package, and the old image is as it was."""
    wanted = replace(same, packages=tuple(sorted([*same.packages, "xxhash==3.5.0"])), identity="sha256:" + "ab" * 32)
    try:
        made = await add_to_image(image, wanted, progress=lambda _: None)
    except Broken as error:
        if "no wheels" not in error.detail:
            raise
        skip_or_fail(f"no package index answers: {error.detail[-300:]}")
    try:
        assert made == "pandacea/pysyft-datasite:" + "ab" * 6
        code = "import importlib.metadata as m\ntry:\n    print(m.version('xxhash'))\nexcept m.PackageNotFoundError:\n    print('none')"
        for name, said in ((made, b"3.5.0\n"), (image, b"none\n")):
            laboratory = await open_laboratory("docker-cold", environment, name="image", image=name)
            outcome = await laboratory.run(code)
            assert outcome.output == said, outcome
            assert ("xxhash==3.5.0" in laboratory.identity.packages) is (name == made)
            await close_laboratory(laboratory)
    finally:
        subprocess.run(["docker", "rmi", "-f", made], check=False, capture_output=True)


@pytest.mark.asyncio
async def test_an_image_that_holds_the_packages_is_the_one(image: str, same: Environment) -> None:
    """Nothing is built when nothing is missing."""
    assert await add_to_image(image, same) == image


@pytest.mark.asyncio
async def test_an_image_of_other_versions_is_not_built_upon(image: str, environment: Path) -> None:
    """Both kinds of sandbox find the same versions, or the difference is named."""
    old = read_environment(environment)
    with pytest.raises(Broken, match=r"different packages \(.+==.+\); build both from one list first"):
        await add_to_image(image, replace(old, packages=("toolz==1.0.0",)))


@pytest.mark.parametrize("name", ["--index-url=http://127.0.0.1/", "./local", "../up", "a\nb"])
def test_options_and_paths_are_no_packages(tmp_path: Path, name: str) -> None:
    """What would change pip's behaviour is refused before pip sees it."""
    with pytest.raises(Refused, match="is not a package name"):
        add_packages(tmp_path, [name])


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """Building never writes into a folder that is not an environment."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(Broken, match="choose another folder"):
        build_environment(tmp_path, progress=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

"""The walls are for attackers: honest work of the usual kinds runs unchanged, on every backend and in every mode."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.sandbox.harness import Laboratory, with_caps, write_converted_table

pytestmark = pytest.mark.asyncio(loop_scope="session")
_LIMITS = with_caps(memory_bytes=1024 * 1024 * 1024, time_seconds=120.0)

_SCIKIT_LEARN = """
from sklearn.linear_model import LinearRegression
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import cross_val_score
x, y = people[["age"]], people["height"]
print(round(LinearRegression().fit(x, y).score(x, y), 6))
forest = RandomForestRegressor(n_estimators=5, random_state=0).fit(x, y)
print(forest.predict([[30]]).shape, len(cross_val_score(LinearRegression(), x, y, cv=3)))
import joblib
joblib.dump(forest, "forest.joblib")
"""
_GROUP_BY = """
table = people.groupby("group").agg({"age": ["mean", "max"], "height": "std"})
print(table.shape, int(people.age.sum()))
people.to_csv("copy.csv", index=False)
people.to_parquet("copy.parquet")
table.to_json("table.json")
people.pivot_table(index="group", values="age").to_csv("pivot.csv")
"""
_NETWORK = """
import torch
from torch import nn
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 13 * 13, 10))
images, labels = torch.rand(32, 1, 28, 28), torch.randint(0, 10, (32,))
optimizer = torch.optim.Adam(model.parameters())
first = None
for step in range(5):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    first = first if first is not None else loss.item()
    pandacea_progress(step + 1, 5)
assert loss.item() < first
torch.save(model.state_dict(), "model.pth")
print("trained", len(torch.load("model.pth", weights_only=True)))
from torch.utils.data import DataLoader, TensorDataset
print(sum(len(batch) for batch, _ in DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True)))
"""
_IN_PLACE = """
people.loc[0, "age"] = 77
people["age"] += 1
people["twice"] = people["height"] * 2
del people["group"]
people.iloc[1, 0] = 3
print(int(people.age.max()), list(people.columns), len(people))
"""
_EVERYDAY = """
import asyncio, concurrent.futures, datetime, json, logging, multiprocessing, re, shutil, sqlite3, subprocess, tempfile, threading, zipfile
print(subprocess.run(["/bin/echo", "child"], capture_output=True, text=True).stdout.strip())
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(abs, range(-5, 5))))
async def wait():
    await asyncio.sleep(0.01)
    return "async"
print(asyncio.run(wait()))
def square(queue, n):
    queue.put(n * n)
queue = multiprocessing.get_context("fork").Queue()
process = multiprocessing.get_context("fork").Process(target=square, args=(queue, 7))
process.start()
print(queue.get(timeout=10))
process.join()
with sqlite3.connect("notes.sqlite") as db:
    db.execute("create table t (a)")
    db.execute("insert into t values (1)")
print(sqlite3.connect("notes.sqlite").execute("select a from t").fetchone())
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
with zipfile.ZipFile("pack.zip", "w") as archive:
    archive.writestr("a.txt", "a")
shutil.copy2("pack.zip", "copy.zip")
logging.basicConfig()
logging.warning("to stderr")
print(datetime.datetime.now(datetime.UTC).tzinfo, re.sub("a", "b", "banana"), json.dumps({"ok": True}))
"""
_TIMES = """
import os, pathlib, shutil, subprocess, tarfile, tempfile
pathlib.Path("new").touch()
pathlib.Path("new").touch()
pathlib.Path("exclusive").touch(exist_ok=False)
try:
    pathlib.Path("exclusive").touch(exist_ok=False)
except FileExistsError:
    print("exists")
os.mkdir("folder")
shutil.copy2("new", "folder/copy2")
shutil.copytree("folder", "tree")
with tarfile.open("pack.tar", "w") as archive:
    archive.add("tree")
with tarfile.open("pack.tar") as archive:
    archive.errorlevel = 2
    archive.extractall("unpacked")
os.utime("new", (1, 1))
subprocess.run(["touch", "by-command", "new"], check=True)
subprocess.run(["cp", "-p", "new", "kept"], check=True)
try:
    os.utime("new")
except PermissionError:
    print("refused, not pretended")
"""


async def test_scikit_learn(laboratory: Laboratory, people: Path) -> None:
    """Fit, cross-validate, save a model."""
    outcome = await laboratory.run(_SCIKIT_LEARN, tables={"people": people}, limits=_LIMITS)
    assert outcome.failure is None, outcome
    assert [artifact.name for artifact in outcome.artifacts] == ["forest.joblib"]


async def test_pandas_group_by_and_files(laboratory: Laboratory, people: Path) -> None:
    """Aggregate and write CSV, Parquet and JSON."""
    outcome = await laboratory.run(_GROUP_BY, tables={"people": people})
    assert outcome.failure is None, outcome
    assert outcome.output.startswith(b"(3, 3) ")
    assert {artifact.name for artifact in outcome.artifacts} == {"copy.csv", "copy.parquet", "table.json", "pivot.csv"}


async def test_a_small_convolutional_network(laboratory: Laboratory) -> None:
    """Train with Adam, save, load, iterate over a DataLoader."""
    outcome = await laboratory.run(_NETWORK, limits=_LIMITS)
    assert outcome.failure is None, outcome
    assert outcome.output == b"trained 4\n32\n"


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow"])
async def test_in_place_edits(laboratory: Laboratory, people: Path, environment: Path, suffix: str) -> None:
    """A script may change its table in place, whatever the file is; the file stays as it was."""
    path = people if suffix == "csv" else write_converted_table(people, environment, suffix)
    before = path.read_bytes()
    outcome = await laboratory.run(_IN_PLACE, tables={"people": path})
    assert outcome.failure is None, outcome
    assert outcome.output == b"78 ['age', 'height', 'twice'] 300\n"
    assert path.read_bytes() == before


async def test_everyday_python(laboratory: Laboratory) -> None:
    """Subprocesses, threads, asyncio, multiprocessing, SQLite, temporary files, archives, logging."""
    outcome = await laboratory.run(_EVERYDAY)
    assert outcome.failure is None, outcome
    assert io.BytesIO(outcome.output).readline() == b"child\n"
    assert {artifact.name for artifact in outcome.artifacts} == {"notes.sqlite", "pack.zip", "copy.zip"}


async def test_files_are_made_copied_and_unpacked(laboratory: Laboratory) -> None:
    """A file's times cannot be set, and nothing that also sets them fails to do the rest: touch makes, copies copy, archives unpack."""
    outcome = await laboratory.run(_TIMES)
    assert outcome.failure is None, outcome
    assert outcome.output == b"exists\nrefused, not pretended\n"
    made = {"new", "exclusive", "folder/copy2", "tree/copy2", "pack.tar", "unpacked/tree/copy2", "by-command", "kept"}
    assert {artifact.name for artifact in outcome.artifacts} == made

"""From a messy table with names in it to something a stranger can use without seeing it, and one script in two places."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
import urllib.request
from pathlib import Path

import mlcroissant
import yaml

from tests.journeys.conftest import ENVIRONMENT, PRODUCT, System, system
from tests.prerequisites import ROOT

ROWS = 200_000
SCRIPT = ROOT / "examples" / "syft_script.py"
EXTREMES = ("1234.56", "-987.65")


def messy_table(path: Path) -> list[list[str]]:
    """200,000 patients: names, record numbers, dates of birth, gaps, a value nobody may learn, two extremes."""
    chance = random.Random(7)
    rows = []
    for number in range(ROWS):
        marker = "" if chance.random() < 0.12 else f"{chance.uniform(10, 90):.3f}7"
        hospital = "Charité (secret pilot)" if number == 77_777 else chance.choice(["north", "south", "west"])
        born = f"19{chance.randint(10, 99)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        age = chance.randint(21, 97)
        rows.append(
            [str(500_000 + number), f"Ann Otter{number}", born, str(age), marker, hospital, str(chance.random() < age / 150)]
        )
    rows[11][4], rows[12][4] = EXTREMES
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["mrn", "name", "dob", "age", "marker", "hospital", "readmitted"], *rows])
    return rows


def add(built: System, *more: str) -> subprocess.CompletedProcess[str]:
    """`pandacea products add`, as an Earner types it."""
    line = [sys.executable, "-m", "pandacea", "products", "add", "patients.csv", "--config", str(built.folder / "config.yaml")]
    line += [
        "--id",
        PRODUCT,
        "--price",
        "0.02 ether",
        "--label",
        "readmitted",
        "--policy",
        "any-code",
        "--release",
        "auto",
        "--yes",
    ]
    line += [
        "--column",
        "age: {unit: years, minimum: 18, maximum: 110}",
        "--column",
        "marker: {unit: mg/l, minimum: 5, maximum: 95}",
    ]
    line += ["--column", "hospital: {categories: [north, south, west]}", *more]
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "daemon"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        check=False,
    )


def get(built: System, path: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(built.url + path, timeout=30) as answer:
        return answer.read(), answer.headers["Content-Type"]


def test_a_messy_table_becomes_a_product_and_one_script_runs_in_two_places(tmp_path: Path) -> None:
    """Registered without its identifiers, shown, mocked, rehearsed at home with syft, and run unchanged on the private rows."""
    with system(tmp_path, "bubblewrap") as built:
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        (tmp_path / "data" / "products.yaml").unlink()
        rows = messy_table(tmp_path / "data" / "patients.csv")

        unsure = add(built)
        assert unsure.returncode == 2
        assert "these columns may identify people: mrn, name, dob" in unsure.stderr
        assert not (tmp_path / "data" / "products.yaml").exists()

        done = add(built, "--drop", "mrn,name,dob")
        assert done.returncode == 0, done.stderr
        assert "This becomes public, and nothing else" in done.stdout
        assert (tmp_path / "state" / "preview.html").exists()
        built.start()

        product = built.client().product(PRODUCT)
        described = product["document"]["assets"][0]
        assert described["rows_rounded"] == ROWS
        assert [column["name"] for column in described["schema"]] == ["age", "marker", "hospital", "readmitted"]
        assert described["schema"][1]["missing"] == 0.1
        check_public_words(built, rows)
        check_croissant(built, tmp_path)

        home = at_home(built, tmp_path)
        assert "age groups of at least 10 patients" in home
        lease_id = built.lease()
        answer = built.client().execute_computation(lease_id, SCRIPT, [{"asset_id": "patients", "variable_name": "unused"}])
        assert answer["success"], (answer.get("error"), answer["results"]["output"])
        assert answer["results"]["output"].strip() == "8 age groups of at least 10 patients, 0 left out"


def check_public_words(built: System, rows: list[list[str]]) -> None:
    """Nothing public holds a private row, an exact extreme, a name, or a category the Earner did not state."""
    page, kind = get(built, f"/products/{PRODUCT}")
    assert kind.startswith("text/html")
    assert b"<script" not in page
    mock, kind = get(built, f"/api/v1/products/{PRODUCT}/assets/patients/mock.csv")
    assert kind.startswith("text/csv")
    # Rows with a measurement: an age, a ward and an outcome alone are shared by many, so mock rows meet them by chance.
    private = {tuple(row[3:]) for row in rows if row[4]}
    mocked = [tuple(row) for row in csv.reader(io.StringIO(mock.decode()))][1:]
    assert len(mocked) == 100
    assert not private & set(mocked)
    assert {row[2] for row in mocked} <= {"north", "south", "west"}
    for content in (page, mock, get(built, f"/api/v1/products/{PRODUCT}")[0]):
        for secret in (*EXTREMES, "Otter", "Charité", "500011", str(ROWS + 1)):
            assert secret.encode() not in content, secret


def check_croissant(built: System, folder: Path) -> None:
    """The product's JSON-LD is a valid Croissant file, and the mock it describes can be read with it."""
    text, kind = get(built, f"/api/v1/products/{PRODUCT}/croissant.json")
    assert kind.startswith("application/ld+json")
    (folder / "croissant.json").write_bytes(text)
    dataset = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    assert dataset.metadata.ctx.issues.errors == set()
    assert "MOCK" in dataset.metadata.description
    (files,) = dataset.metadata.distribution
    assert files.content_url.endswith("/assets/patients/mock.csv")
    assert [field.data_types[0].split("/")[-1] for field in dataset.metadata.record_sets[0].fields][:2] == ["Integer", "Float"]


def at_home(built: System, folder: Path) -> str:
    """Download the mock, make the SyftBox folder, and run the script as a Spender does."""
    (saved,) = built.client().save_mocks(PRODUCT, folder / "mock")
    assert saved.name == "patients_mock.csv"
    python = str(ENVIRONMENT / "bin" / "python")
    make = (
        "import json, sys; from pandacea_sdk.mocks import offer_to_syft; print(json.dumps(offer_to_syft(sys.argv[1], sys.argv[2])))"
    )
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT / "daemon")}
    made = subprocess.run(
        [python, "-c", make, str(folder / "mock"), str(folder / "syftbox")], capture_output=True, text=True, env=plain, check=False
    )
    assert made.returncode == 0, made.stderr
    environment = json.loads(made.stdout.splitlines()[-1])
    (folder / "work").mkdir()
    ran = subprocess.run(
        [python, str(SCRIPT)], capture_output=True, text=True, cwd=folder / "work", env=plain | environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert (folder / "work" / "readmission.json").exists()
    assert yaml.safe_load((folder / "work" / "readmission.json").read_text())
    return ran.stdout

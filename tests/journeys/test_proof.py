"""What an Earner can prove afterwards, as it is typed: the audit log, a replay."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.journeys.conftest import INPUTS, pandacea, system

REPEATS = "import pathlib\nprint(features['wind'].sum())\npathlib.Path('m.txt').write_text(str(features['sun'].mean()))\n"
DIFFERS = "import pathlib, time\nprint('done')\npathlib.Path('m.bin').write_text(str(time.time_ns()))\n"


def test_an_earner_lists_verifies_and_replays(tmp_path: Path) -> None:
    """0 where all holds; 3, with the row, for a log that was tampered with, and, with its name, for an artifact that does not repeat."""
    folder = tmp_path / "node"
    with system(folder, "bubblewrap") as built:
        built.start()
        lease, config = built.lease(), str(folder / "config.yaml")
        answers = []
        for number, text in enumerate((REPEATS, DIFFERS)):
            script = folder / f"{number}.py"
            script.write_text(text)
            answers.append(built.client().execute_computation(lease, script, INPUTS))
        receipts = tmp_path / "receipts"
        receipts.mkdir()
        (receipts / "last.json").write_text(json.dumps({name: answers[1][name] for name in ("receipt", "manifest")}))

        done = pandacea("replay", answers[0]["computation_id"][:12], "--config", config)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"byte for byte, those signed as {answers[0]['result_hash']}" in done.stdout
        done = pandacea("replay", answers[1]["computation_id"], "--config", config, "--json")
        assert done.returncode == 3, done.stderr
        assert [one["what"] for one in json.loads(done.stdout)["differences"]] == ["artifact m.bin"]
        assert sorted(path.name for path in (folder / "state" / "results").iterdir()) == sorted(
            answer["computation_id"] for answer in answers
        )

        done = pandacea("audit", "--json", "--config", config)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["event"] for row in rows] == ["run-started", "run-ended", "run-started", "run-ended", "replayed", "replayed"]
        assert rows[4]["by"].startswith("operator ")
        assert answers[1]["manifest"]["audit_head"] == rows[2]["hash"]
        verify = ("audit", "verify", "--receipts", str(receipts), "--config", config)
        assert pandacea(*verify).returncode == 0

        built.stop()
        with closing(sqlite3.connect(folder / "state" / "pandacea.db")) as database:
            database.execute("DROP TRIGGER audit_keeps_UPDATE")
            database.execute("UPDATE audit SET entry = replace(entry, 'run-started', 'run-refused') WHERE seq = 3")
            database.commit()
        done = pandacea(*verify)
        assert done.returncode == 3
        assert "the audit log is broken at row 3: its text or its hash is not what was written" in done.stderr
        assert "run-started" in pandacea("audit", "--config", config).stdout
        done = pandacea("replay", answers[0]["computation_id"], "--config", config)
        assert done.returncode == 1
        assert "needs the running node" in done.stderr

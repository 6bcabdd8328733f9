"""How readmission goes with age. The same file at home, where syft gives the mock, and in the Earner's sandbox, where it gives the table.

at home:         run by examples/syft_example.py, or by hand with SYFTBOX_FOLDER and SYFTBOX_EMAIL set
in the sandbox:  sent unchanged; nothing is injected, syft finds the private table by its name
"""

import json

import pandas as pd
import syft as sy

patients = pd.read_feather(sy.resolve_dataset_file_path("patients"))
patients["decade"] = patients["age"] // 10 * 10
groups = patients.groupby("decade")["readmitted"].agg(["size", "mean"])
shown = groups[groups["size"] >= 10]  # small groups stay where they are

with open("readmission.json", "w") as file:
    json.dump({str(decade): round(row["mean"], 3) for decade, row in shown.iterrows()}, file)
print(f"{len(shown)} age groups of at least 10 patients, {len(groups) - len(shown)} left out")

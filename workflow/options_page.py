"""The search for the methods' options as docs/choosing_options.md shows it; readme.py writes the page."""

from pathlib import Path

import pandas as pd
import tune

from companion import tables
from compat_lib.evaluation.records import shown
from compat_lib.losses import METHODS


class Search:
    """What the page about the options may ask for, of a declared search and the folder of its lines."""

    def __init__(self, declaration: Path, folder: Path) -> None:
        self.declared = tune.read_search(declaration)
        lines = pd.concat(tune.read_lines(self.declared, folder).values())
        self.table = self.declared.table(lines)
        self.titles = {method: METHODS[method].title for method in self.declared.ranges}
        self.machines = sorted(set(lines.loc[lines["run"].isin(self.table["run"]), "processor"].dropna()))

    def outcome(self) -> str:
        """One line a method: its best trial beside the former default, scores in points."""
        rows = []
        for method, own in self.table.groupby("method", sort=False):
            found, options = tune.scores(own), self.declared.options(method)
            # Of the finalists, once they have been trained with the further seeds.
            known = found.loc[found["cells"] == found["cells"].max(), "score"].dropna()
            best = known.idxmax() if len(known) else None
            words = ", ".join(f"{name}={value:g}" for name, value in options[best or 0].items())
            row = {"method": self.titles[method]}
            row["best options"] = "" if best is None else f"`{words}`" if best else "the default"
            values = {name: found[name].get(best) for name in ("score", "gain", "price")}
            values["score of the default"] = found["score"].get(0)
            for name, value in values.items():
                row[name] = "" if pd.isna(value) else shown(value / 100, signed=True)
            row["trainings"] = f"{own['there'].sum()} of {self.declared.planned_each}"
            row["failed"] = (own["there"] & own["score"].isna()).sum()
            rows.append(row | {"n": f"{found['cells'].max()} of {len(self.declared.cells)}"})
        return tables.markdown(pd.DataFrame(rows), left=2)

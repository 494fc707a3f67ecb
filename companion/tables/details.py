"""An upgrade looked at closely: who loses, which constraints hold, which backfill order pays, scores."""

import numpy as np
import pandas as pd

from companion.tables.narrow import marked_title
from companion.tables.series import by_method
from companion.tables.text import NOT_MEASURABLE
from compat_lib.evaluation.upgrade_scores import upgrade_scores
from compat_lib.losses import METHODS

CHANGES = {
    "changes/losing": "identities that lose",
    "changes/gaining": "identities that gain",
    "changes/negative_flips": "right before, wrong now",
    "changes/positive_flips": "wrong before, right now",
}
CONSTRAINTS = {
    "constraint1/share": "1: same,\nnew/old nearer",
    "constraint2/share": "2: different,\nnew/old farther",
    "constraint3/share": "3: same,\nnew/new nearer",
    "constraint4/share": "4: different,\nnew/new farther",
}
ORDERS = {"uncertain": "least certain first", "farthest": "farthest first"}


def changes_table(frame: pd.DataFrame, experiment_id: str) -> pd.DataFrame:
    """Who gets worse when old queries become new ones and the gallery stays, per cent, as text.

    Args:
        frame: from collect.
        experiment_id: which experiment.

    Returns:
        Text columns: method, identities whose mean average precision falls and rises, queries whose answer
        at rank 1 turns from right to wrong and from wrong to right.
    """
    return _table(frame, experiment_id, CHANGES)


def constraint_table(frame: pd.DataFrame, experiment_id: str) -> pd.DataFrame:
    """Share of the pairs of test images that satisfy each of MixBCT's four constraints, per cent, as text."""
    return _table(frame, experiment_id, CONSTRAINTS)


def order_table(frame: pd.DataFrame, experiment_id: str) -> pd.DataFrame:
    """Mean mAP over a backfill in random order, and what another order adds to it, in points, as text."""
    columns = {"mixed/order=random/area/map": "random order"}
    signed = {f"mixed/order={name}/area_over_random/map": title for name, title in ORDERS.items()}
    return _table(frame, experiment_id, columns, signed)


def upgrade_score_table(frame: pd.DataFrame, experiment_id: str, metric: str = "map") -> pd.DataFrame:
    """AdvBCT's P_up, P_comp and P_1, per cent, 50 is neutral, as text: the mean over seeds with an oracle.

    Args:
        frame: from collect.
        experiment_id: which experiment.
        metric: name without the pair; AdvBCT takes mAP.
    """
    groups = by_method(frame, experiment_id)
    oracle = groups.get("independent", pd.DataFrame({"seed": []})).set_index("seed")
    lines = []
    for name, runs in groups.items():
        if name == "independent":
            continue
        found = []
        for row in runs.to_dict("records"):
            if row["seed"] in oracle.index:
                pairs = ("new_new", "new_old", "old_old")
                values = [_number(row, f"{pair}/{metric}") for pair in pairs]
                values.append(_number(oracle.loc[row["seed"]], f"new_new/{metric}"))
                found.append(upgrade_scores(*values).metrics)
        line = {"method": _title(runs.iloc[0])}
        for score, title in (("p_up", "P_up"), ("p_comp", "P_comp"), ("p_1", "P_1")):
            known = [scores[score] for scores in found if scores[score] is not None]
            line[title] = _cell(known, None, "", scale=1) if known else NOT_MEASURABLE
        lines.append(line)
    return pd.DataFrame(lines, columns=["method", "P_up", "P_comp", "P_1"])


def _table(
    frame: pd.DataFrame, experiment_id: str, columns: dict[str, str], signed: dict[str, str] | None = None
) -> pd.DataFrame:
    lines = []
    for runs in by_method(frame, experiment_id).values():
        line = {"method": _title(runs.iloc[0])}
        for column, title in (columns | (signed or {})).items():
            values = [_number(row, column) for row in runs.to_dict("records")]
            known = [value for value in values if value is not None]
            ends = tuple(_number(runs.iloc[0], f"{column}/{end}") for end in ("low", "high"))
            sign = "+" if column in (signed or {}) else ""
            line[title] = _cell(known, None if None in ends else ends, sign) if known else NOT_MEASURABLE
        lines.append(line)
    measured = [line for line in lines if set(list(line.values())[1:]) != {NOT_MEASURABLE}]
    return pd.DataFrame(measured, columns=["method", *columns.values(), *(signed or {}).values()])


def _cell(values: list[float], ends: tuple[float, float] | None, sign: str, scale: float = 100) -> str:
    """Mean and deviation of several seeds, or the value of one with its interval."""
    text = f"{scale * np.mean(values):{sign}.1f}"
    if len(values) > 1:
        return f"{text}\n± {scale * np.std(values, ddof=1):.1f}"
    if ends is None:
        return text
    return f"{text}\n[{scale * ends[0]:{sign}.1f},\u00a0{scale * ends[1]:{sign}.1f}]"


def _number(row, column: str) -> float | None:
    value = row.get(column)
    return None if value is None or pd.isna(value) else float(value)


def _title(row: pd.Series) -> str:
    return marked_title(
        {**row, "reconstruction": getattr(METHODS.get(row["method"]), "reconstruction", False)}
    )

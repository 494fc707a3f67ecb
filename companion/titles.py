"""Names for people: of a method, of a run, of a setting."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from compat_lib.losses import METHODS

ADAPTERS = {
    "adapter/lambda-orthogonal": "λ-orthogonal maps of gallery and query",
    "adapter/lambda-orthogonal-query": "λ-orthogonal map, query to old",
    "adapter/procrustes": "Procrustes adapter, gallery to new",
    "adapter/procrustes-query": "Procrustes adapter, query to old",
    "adapter/procrustes-midpoint": "Procrustes, half-way to the old query",
    "adapter/procrustes-slerp": "Procrustes, SLERP with the old query",
    "adapter/ridge": "ridge adapter, gallery to new",
    "adapter/ridge-query": "ridge adapter, query to old",
}
QUERIES = {
    "with-old-query": "with the old query, weight chosen on validation images",
    "midpoint": "with the old query, half-way",
}
OLD_QUERIES = ("adapter/procrustes-midpoint", "adapter/procrustes-slerp")  # which ask the old model too
CEILINGS = {"mean-of-five": "ceiling: the query is the mean of five other old features of its identity"}
DATASETS = {
    "portraits": "Portraits",
    "omniglot": "Omniglot",
    "cifar100": "CIFAR-100",
    "folder": "Image folder",
    "market1501": "Market-1501",
    "dukemtmc": "DukeMTMC-reID",
    "msmt17": "MSMT17",
    "imagenet": "ImageNet",
    "places365": "Places365",
}
PROTOCOLS = {
    "ijb": "IJB 1:1 and 1:N",
    "reid": "re-identification",
    "leave-one-out": "leave-one-out retrieval",
    "landmarks": "landmark retrieval",
}
SETTING = (  # the fields of a configuration that make an experiment
    *("dataset", "old_dataset", "scenario", "old_strength", "old_loss", "new_loss"),
    *("old_backbone", "new_backbone", "old_epochs", "epochs", "old_width", "new_width", "protocol"),
    "old_outliers",
    *("dataset_options", "old_dataset_options", "old_features"),
)
LOSSES = {"softmax": "softmax", "cosface": "CosFace", "arcface": "ArcFace", "simplex": "simplex"}


def method_title(method: str, budget: str = "steps", options: str = "{}") -> str:
    """A method's name for people, with what sets the run apart: its budget and its options (JSON text).

    >>> method_title("mixbct", "passes"), method_title("mixbct", options='{"mix_ratio": 0.2}')
    ('MixBCT, equal backbone passes', 'MixBCT (mix_ratio=0.2)')
    """
    title = ADAPTERS.get(method) or getattr(METHODS.get(method), "title", method)
    chosen = ", ".join(f"{name}={value}" for name, value in json.loads(options).items())
    return title + ", equal backbone passes" * (budget == "passes") + (f" ({chosen})" if chosen else "")


def row_title(row: Mapping[str, Any]) -> str:
    """The title of the method of a row, with "reconstruction" where its publication leaves details open.

    Args:
        row: of `results.collect` or `results.scores`, or a run's configuration.
    """
    options = row.get("method_options") or "{}"
    title = method_title(
        row["method"],
        row.get("budget") or "steps",
        options if isinstance(options, str) else json.dumps(options),
    )
    return title + (" (reconstruction)" if is_reconstruction(row["method"]) else "")


def is_reconstruction(method: str) -> bool:
    return bool(getattr(METHODS.get(method), "reconstruction", False))


def needs_of(method: str) -> str:
    """What a method must still have of the old model, for a table.

    >>> needs_of("mixbct"), needs_of("independent")
    ('features', 'nothing')
    """
    needs = {"features"} if method.startswith("adapter/") else getattr(METHODS.get(method), "needs", ())
    at_query_time = ["the model at query time"] * (method in OLD_QUERIES)
    return ", ".join([*sorted(needs), *at_query_time]) or "nothing"


def query_cost(method: str) -> str:
    """What runs at query time, for a table; a gallery that has to be mapped beforehand is named as well.

    >>> query_cost("bct"), query_cost("adapter/ridge-query"), query_cost("fct")
    ('new model', 'new model, map', 'new model; gallery mapped')
    """
    if method in OLD_QUERIES:
        return "new and old model"
    if not method.startswith("adapter/"):
        return getattr(METHODS.get(method), "asks", "new model")
    mapped = method.endswith("-query"), not method.endswith("-query")
    mapped = (True, True) if method == "adapter/lambda-orthogonal" else mapped
    return "new model" + ", map" * mapped[0] + "; gallery mapped" * mapped[1]


def asks_alone(method: str) -> bool:
    """Whether the new model alone asks a gallery that nobody has touched, as compatible training does."""
    return query_cost(method) in ("new model", "new model, map")


def data_set_title(row: Mapping[str, Any], field: str = "dataset") -> str | None:
    """A data set for people: an image folder by its own name; None where the row has none.

    Args:
        row: a run's configuration, or a row of `results`, with the options as a dictionary or as JSON text.
        field: "dataset" or "old_dataset".
    """
    name, options = row.get(field), row.get(f"{field}_options") or {}
    if not isinstance(name, str):
        return None
    options = json.loads(options) if isinstance(options, str) else options
    return Path(options["path"]).name if name == "folder" and "path" in options else DATASETS.get(name, name)


def setting_title(row: Mapping[str, Any]) -> str:
    """An experiment for people: data set, scenario, losses, a weak old model, an upgrade of an upgrade.

    >>> setting_title({"dataset": "portraits", "scenario": "open-class", "old_loss": "softmax",
    ...                "new_loss": "arcface", "old_strength": "weak"})
    'Portraits, open-class, softmax to ArcFace, weak old model'
    """
    losses = [LOSSES.get(row[name], str(row[name])) for name in ("old_loss", "new_loss")]
    names = (data_set_title(row, name) for name in ("old_dataset", "dataset"))
    named = " to ".join(name for name in names if name)
    title = f"{named}, {row['scenario']}, {losses[0]} to {losses[1]}"
    if isinstance(row.get("old_features"), str):
        title = f"{named}, features of {Path(row['old_features']).name} to {losses[1]}"
    title += f", {PROTOCOLS[row['protocol']]}" if row.get("protocol") in PROTOCOLS else ""
    title += ", weak old model" if row.get("old_strength") == "weak" else ""
    return title + (", next generation" if isinstance(row.get("old_run"), str) else "")


def setting_titles(rows: pd.DataFrame) -> dict[str, str]:
    """Title of every experiment in a frame; those that would be equal say in which fields they differ.

    >>> one = {"dataset": "omniglot", "scenario": "open-data", "old_loss": "softmax", "new_loss": "arcface"}
    >>> options = {2: {"images": 10}, 20: {}}
    >>> rows = [one | {"experiment_id": f"x-{k}", "dataset_options": options[k]} for k in options]
    >>> setting_titles(pd.DataFrame(rows))["x-2"]
    'Omniglot, open-data, softmax to ArcFace, images=10'
    """
    settings = {row["experiment_id"]: row for row in rows.to_dict("records")}
    titles = pd.Series({name: setting_title(row) for name, row in settings.items()}, dtype=object)
    for title, alike in titles.groupby(titles):
        if len(alike) > 1:
            # As objects: where one setting lacks a field, the whole numbers of the others stay such.
            known = [_fields(settings[name]) for name in alike.index]
            fields = pd.DataFrame(known, alike.index, dtype=object).map(str)
            apart = fields.columns[fields.nunique() > 1]
            for name, row in fields[apart].iterrows():
                told = [f"{field}={value}" for field, value in row.items() if value not in ("None", "nan")]
                titles[name] = (
                    ", ".join([title, *told]) if len(apart) else f"{title} ({name.rsplit('-', 1)[-1]})"
                )
    return titles.to_dict()


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """What tells settings apart, with the options of the data set beside the other fields."""
    options = row.get("dataset_options") or {}
    options = json.loads(options) if isinstance(options, str) else options
    return {name: row[name] for name in SETTING if name in row and name != "dataset_options"} | options


def plot_name(row: Mapping[str, Any]) -> str:
    """A method's name for the plots, with what sets it apart in brackets.

    >>> plot_name({"method": "mixbct", "budget": "passes", "method_options": "{}"})
    'mixbct (equal passes)'
    """
    marks = ["equal passes"] * (row["budget"] == "passes")
    marks += [f"{name}={value}" for name, value in json.loads(row["method_options"]).items()]
    return row["method"] + (f" ({', '.join(marks)})" if marks else "")

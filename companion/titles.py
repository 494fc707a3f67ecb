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
CEILINGS = {"mean-of-five": "to compare: the query is the mean of five other old features of its identity"}
DATASETS = {
    "portraits": "Portraits",
    "omniglot": "Omniglot",
    "cifar100": "CIFAR-100",
    "folder": "Image folder",
    "ms1mv3": "MS1MV3",
    "celeba-lfw": "CelebA, LFW",
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


def options_of(row: Mapping[str, Any], field: str = "method_options") -> dict[str, Any]:
    """Options as a dictionary; a run's configuration has them so, a row of `results` as JSON text."""
    found = row.get(field)
    return json.loads(found) if isinstance(found, str) else found if isinstance(found, dict) else {}


def method_title(method: str, budget: str = "steps", options: str | Mapping[str, Any] = "{}") -> str:
    """A method's name for people, with what sets the run apart: its budget and its options (JSON or not).

    >>> method_title("mixbct", "passes"), method_title("mixbct", options='{"mix_ratio": 0.2}')
    ('MixBCT, equal backbone passes', 'MixBCT (mix_ratio=0.2)')
    """
    title = ADAPTERS.get(method) or getattr(METHODS.get(method), "title", method)
    options = json.loads(options) if isinstance(options, str) else options
    chosen = ", ".join(f"{name}={value}" for name, value in options.items())
    return title + ", equal backbone passes" * (budget == "passes") + (f" ({chosen})" if chosen else "")


def row_title(row: Mapping[str, Any]) -> str:
    """The title of the method of a row or of a configuration, and whether it is a reconstruction."""
    title = method_title(row["method"], row.get("budget") or "steps", options_of(row))
    return title + " (reconstruction)" * is_reconstruction(row["method"])


def is_reconstruction(method: str) -> bool:
    """Whether its publication leaves details open."""
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


def data_set(row: Mapping[str, Any], field: str = "dataset") -> str | None:
    """The data set of a row, or its "old_dataset", by name: an image folder's own; None where it has none."""
    name, options = row.get(field), options_of(row, f"{field}_options")
    if name == "folder" and "path" in options:
        return Path(options["path"]).name
    return name if isinstance(name, str) else None


def setting_title(row: Mapping[str, Any]) -> str:
    """An experiment for people: data set, scenario, losses, a weak old model, an upgrade of an upgrade.

    >>> setting_title({"dataset": "portraits", "dataset_options": {"looks": 2}, "scenario": "open-class",
    ...                "old_loss": "softmax", "new_loss": "arcface", "old_strength": "weak"})
    'Portraits of 2 looks, open-class, softmax to ArcFace, weak old model'
    """
    losses = [LOSSES.get(row[name], str(row[name])) for name in ("old_loss", "new_loss")]
    sets = {field: data_set(row, field) for field in ("old_dataset", "dataset")}
    looks = {field: options_of(row, f"{field}_options").get("looks", 1) for field in sets}
    named = " to ".join(
        DATASETS.get(name, name) + f" of {looks[field]} looks" * (name == "portraits" and looks[field] > 1)
        for field, name in sets.items()
        if name
    )
    title = f"{named}, {row['scenario']}, {losses[0]} to {losses[1]}"
    if isinstance(row.get("old_features"), str):
        title = f"{named}, features of {Path(row['old_features']).name} to {losses[1]}"
    title += f", {PROTOCOLS[row['protocol']]}" if row.get("protocol") in PROTOCOLS else ""
    title += ", weak old model" if row.get("old_strength") == "weak" else ""
    title += f", {100 * row['old_outliers']:g} % wrong old features" if row.get("old_outliers") else ""
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
            known = [
                {name: row[name] for name in SETTING if name in row and name != "dataset_options"}
                | options_of(row, "dataset_options")
                for row in map(settings.get, alike.index)
            ]
            fields = pd.DataFrame(known, alike.index, dtype=object).map(str)
            apart = fields.loc[:, fields.nunique() > 1]
            told = apart.mask(apart.isin(["None", "nan"]))
            most = apart.apply(lambda column: column.map(column.value_counts(normalize=True))) > 0.5
            rare = told.mask(most)  # what most of them share is not said, unless it tells two apart
            again = rare.duplicated(keep=False)
            differing = told.loc[again, apart[again].nunique() > 1]
            rare = rare.combine_first(differing)[apart.columns]
            for name, row in rare.iterrows():
                words = [f"{field}={value}" for field, value in row.dropna().items()]
                digest = f" ({name.rsplit('-', 1)[-1]})"
                titles[name] = ", ".join([title, *words]) + digest * apart.empty
    return titles.to_dict()


def plot_name(row: Mapping[str, Any]) -> str:
    """A method's name for the plots, with what sets it apart in brackets.

    >>> plot_name({"method": "mixbct", "budget": "passes", "method_options": "{}"})
    'mixbct (equal passes)'
    """
    marks = ["equal passes"] * (row["budget"] == "passes")
    marks += [f"{name}={value}" for name, value in options_of(row).items()]
    return row["method"] + (f" ({', '.join(marks)})" if marks else "")

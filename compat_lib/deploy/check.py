"""Is a new model compatible with the old one? Features of both in; a verdict and its numbers out.

`check_files`, or ``compat-lib check old.npz new.npz --report page.html``, asks the same of two files.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compat_lib.deploy import check_inputs as given
from compat_lib.deploy import check_rows as table
from compat_lib.deploy.check_measure import ByIdentity, ByLists, judged_pairs, read_relevance
from compat_lib.deploy.check_pictures import title
from compat_lib.deploy.check_result import CompatibilityCheck
from compat_lib.deploy.check_verdict import cautions, decided
from compat_lib.deploy.feature_files import FeatureTable, as_keys, read_features
from compat_lib.evaluation.four_constraints import constraints
from compat_lib.evaluation.records import Record, Records
from compat_lib.evaluation.upgrade import changes
from compat_lib.files import file_sha256
from compat_lib.names import checked_count, one_each


def check_compatibility(
    old_features: Any,
    new_features: Any,
    labels: Any = None,
    *,
    new_labels: Any = None,
    ids: Any = None,
    new_ids: Any = None,
    relevance: Any = None,
    groups: Any = None,
    metric: str | None = None,
    threshold: float | None = None,
    adapter: bool = True,
    queries: int | None = None,
    draws: int = 200,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> CompatibilityCheck:
    """Return whether new queries do better against the old gallery than old ones, and what else would help.

    BCT's empirical criterion (Shen et al., CVPR 2020, arXiv 2003.11942) is new/old > old/old. Here the 95 %
    interval of the difference, over identities, must lie above zero to be called compatible and below it to
    be called not compatible; undecided where it holds zero, with fewer than six identities that ask, fewer
    than 40 draws, or where two metrics are decided in opposite ways. Features of unequal width have no cosine
    and are not compatible; so is nothing by an adapter or an interpolation, however good.

    Every image is a gallery image, and a query that never meets itself; values and intervals are those of
    `evaluation.compare`. Maps and interpolations are fitted twice, each half of the identities by the other.

    Without labels nothing is called compatible: the rows tell how many of the ten images that the new model
    itself finds nearest each of them finds too. With relevance lists the queries are what is drawn.

    Args:
        old_features, new_features: real [N, d_old], [N', d_new], NumPy, torch or lists; rows of any length.
        labels, new_labels: whole numbers or names [N], [N']; one of them, or both, may be None.
        ids, new_ids: whole numbers or names of the images, each once; None: row i of both is the same image.
        relevance: in place of labels, a table of ids, "query", "item" and perhaps "relevance", as
            `read_relevance` gives; the gallery is every row that is no query, or an answer to one.
        groups: [N], names of groups of the images, such as a camera: the verdict of each one's queries.
        metric: "tar@far=F", "map", "rank1" or "rank5". None: TAR at FAR 1e-3, or mAP with too few pairs of
            images or fewer than 30 identities.
        threshold: of the cosine, as it is used with the old model. None: the one at the metric's FAR.
        adapter: measure maps and interpolations.
        queries: how many images ask, drawn at random. None: as many as make 10**8 pairs, and at least 2,000.
        draws, seed: bootstrap draws, and the seed of all that is drawn.
        say: receives a line before each step.

    Input from which there is no answer is a ValueError with a sentence.

    >>> old = [[1.0, 0.0], [0.5, 0.9], [0.0, 1.0], [0.9, 0.5]]
    >>> new = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    >>> result = check_compatibility(old, new, [0, 0, 1, 1], draws=0)
    >>> result.verdict, result.above  # two identities are no evidence
    ('undecided', True)
    """
    for name, value, least in (("queries", queries, 1), ("draws", draws, 0), ("seed", seed, 0)):
        if value is not None:
            checked_count(name, value, least)
    if threshold is not None and not -1 < threshold < 1:
        raise ValueError(f"the threshold is {threshold}; give a cosine between -1 and 1")
    if groups is not None:
        one_each(groups, "groups", len(old_features), "old features")
    if relevance is not None and (ids is None or labels is not None or new_labels is not None):
        raise ValueError("relevance lists name images by ids, and take the place of labels: give ids alone")
    keys = {"new_labels": new_labels, "ids": ids, "new_ids": new_ids}
    sides = given.bring_together(old_features, new_features, labels, **keys)
    if relevance is not None:
        pairs = judged_pairs(relevance)
        measure = ByLists.of(pairs, as_keys("ids", ids)[sides.rows], metric, draws, seed)
    elif sides.labels is None:
        measure = ByLists.of_neighbours(sides.after, metric, queries, draws, seed)
    else:
        measure = ByIdentity.of(sides.labels, metric, queries, draws, seed)
    tests, records, ordered = {}, Records(), []
    for names, query, gallery in table.rows_of(sides, adapter, seed):
        say(f"{title(*names)}: {len(measure.rows):,} queries, {len(gallery):,} gallery images")
        tests[names] = measure.test(query, gallery)
        records += tests[names].records.changed(query=names[0], gallery=names[1], adapter=names[2])
        alone = names[2] not in ("midpoint", "slerp")  # which hold the old query itself
        if names[:2] == ("new", "old") and alone and sides.labels is not None:
            ordered.append(table.in_order(query, gallery, sides.labels, seed))
    mixed_up = bool(ordered) and max(ordered) < table.ORDERED
    doubtful = mixed_up or sides.mostly_alike
    records += [
        *table.differences(records, "gain", ("old", "old")),
        *table.differences(records, "over_swap", ("new", "old")),
        Record(None, None, f"chance/{measure.metric}", measure.chance()),
        *table.thresholds(tests, measure, threshold),
    ]
    by_group = ()
    if sides.equal_widths:
        before, after = (tests[model, "old", None].retrieval for model in ("old", "new"))
        records += changes(before, after, measure.owners, draws=draws, seed=seed).records
        records += table.mixed(sides, measure, tests, seed, merged=False)
        if groups is not None:
            names = as_keys("groups", groups)[sides.rows[measure.rows]]
            by_group, found = table.by_group(sides, measure, names, doubtful)
            records += found
        if sides.labels is not None:
            paired = given.choose_pairwise(sides.labels, seed)
            pair = (side[torch.from_numpy(paired)] for side in (sides.before, sides.after))
            records += constraints(*pair, sides.labels[paired], draws=draws, seed=seed).records
    records += table.mixed(sides, measure, tests, seed, merged=True)
    basis = {"images": len(sides.rows), "queries": len(measure.rows), "asking": measure.asking()}
    basis |= {} if sides.labels is None else {"identities": int(sides.labels.max()) + 1}
    basis |= {"draws": draws, "seed": seed}
    verdict, reason = decided(sides, records, measure, metric, mixed_up)
    notes = *sides.notes, *cautions(sides, records, measure, metric, adapter, mixed_up)
    fitted = table.best_map(records, measure.metric, sides)
    found = measure.metric, records, notes, basis, tests, measure.how, by_group, fitted, doubtful
    return CompatibilityCheck(verdict, reason, *found)


def check_files(
    old: Path,
    new: Path,
    *,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    relevance: Path | None = None,
    beside: Mapping[str, Path] | None = None,
    **options: Any,
) -> CompatibilityCheck:
    """The same of two files of features with labels and perhaps ids, which `files` and `notes` then tell of.

    Files and columns are as in `read_features`; group: the column of groups, in either file; relevance: a
    file for `read_relevance`; beside: "labels", "ids", "new_labels" and "new_ids" -> files that hold them
    where the features' files do not. The rest are options of `check_compatibility`.
    """
    beside, how = dict(beside or {}), {"columns": columns, "group": group, "elsewhere": True}
    if relevance is not None and beside.keys() & {"labels", "new_labels"}:
        raise ValueError("relevance lists take the place of labels: give a file of one of them")
    before = read_features(old, ids=beside.get("ids"), labels=beside.get("labels"), **how)
    after = read_features(new, ids=beside.get("new_ids"), labels=beside.get("new_labels"), **how)
    keys = {"new_labels": after.labels, "ids": before.ids, "new_ids": after.ids}
    if group is not None:
        options["groups"] = _groups(before, after, group)
    labels = before.labels
    if "labels" in (columns or {}) and labels is None and after.labels is None:
        raise ValueError(f"neither file has a column of labels {columns['labels']!r}; give the name of one")
    if relevance is not None:
        options["relevance"], keys["new_labels"], labels = read_relevance(relevance), None, None
    result = check_compatibility(before.features, after.features, labels, **keys, **options)
    files = _file("old", before), _file("new", after)
    notes = [f"{files[n]['name']}: {note}" for n, one in enumerate((before, after)) for note in one.notes]
    return replace(result, notes=(*notes, *result.notes), files=files)


def _groups(before: FeatureTable, after: FeatureTable, group: str) -> np.ndarray:
    """The groups of the old side's rows, which stand in either file."""
    if before.groups is not None:
        return before.groups
    if after.groups is None:
        raise ValueError(f"neither file has a column {group!r}; --group takes the name of one")
    if before.ids is None or after.ids is None:
        return after.groups
    found = dict(zip(after.ids.astype(str), after.groups.astype(str), strict=True))
    return np.array([found.get(one, "") for one in before.ids.astype(str)])


def _file(side: str, one: FeatureTable) -> dict[str, Any]:
    # Which file it was, whatever its name, which may hold bytes that are no text; or which parts.
    parts = sorted(path for path in one.path.rglob("*") if path.is_file()) or [one.path]
    name, (rows, width) = os.fsencode(one.path.name), one.features.shape
    size = {"rows": rows, "width": width, "bytes": sum(part.stat().st_size for part in parts)}
    return {"side": side, "name": name.decode("utf-8", "replace"), **size, "sha256": file_sha256(*parts)}

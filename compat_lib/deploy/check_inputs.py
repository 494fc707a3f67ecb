"""What a compatibility check is given, brought into one order, and what of it is measured."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compat_lib.deploy.feature_files import as_keys
from compat_lib.evaluation.compatibility import HEADLINE, RANKS, tar_name
from compat_lib.evaluation.inputs import UnitRows, as_tensor, table
from compat_lib.evaluation.records import metric_title
from compat_lib.names import one_each

FOUND = 0.5  # of the shorter side's ids, that must stand on the other side too
NO_LABEL = (  # in any case
    *("", "nan", "none", "null", "nil", "n/a", "na", "n.a.", "<na>", "#n/a", "-", "--", "?", "-1", "unknown"),
    *("<unk>", "unk", "missing", "undefined", "unlabeled", "unlabelled", "no label", "unassigned"),
)
HOARD = 3  # an identity of so many times the images of the next one, and a twentieth of all, is named
BYTES = 70  # standard deviation of 8-bit numbers that are spread over all values, as packed bits are
REPEATED, OF_IDENTITIES = 5, 3  # rows alike, of so many identities at least, are no features of their images
CELL, DIRECTIONS = 1e-4, 4  # rows are alike whose projections on a few directions differ by less
BLOCK = 2**16  # rows worked on at a time
RESOLVED, FEWEST = 10, 30  # impostor pairs that the headline's FAR must let pass, identities; or mAP decides
PAIRS_ASKED, FEWEST_QUERIES = 10**8, 2_000  # as many queries as make so many pairs, and at least so many
PAIRWISE, EACH = 2_000, 20  # images between which the constraints are counted, and of one identity

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Sides:
    """The images that both models have embedded, row i of both being the same one."""

    before: Tensor  # float32 [M, d_old], unit rows of the old model; float64 where many cosines should tie
    after: Tensor  # [M, d_new], likewise of the new model
    labels: np.ndarray | None  # int64 [M], identities 0..K-1 in the order of their names
    rows: np.ndarray  # int64 [M], of the old side as given
    notes: tuple[str, ...]  # what was left out, and what to be careful with
    mostly_alike: bool  # more than half of the old rows are one vector, which no verdict may rest on

    @property
    def equal_widths(self) -> bool:
        """Whether a new query has a cosine with an old gallery image."""
        return self.before.shape[1] == self.after.shape[1]


def bring_together(
    old_features: Any,
    new_features: Any,
    labels: Any = None,
    *,
    new_labels: Any = None,
    ids: Any = None,
    new_ids: Any = None,
) -> Sides:
    """Both models' features of the images that both have; arguments and errors as in `check_compatibility`.

    Rows are joined by ids, or row i is row i. Images without a label (`NO_LABEL`, None, nan) are left out,
    and so are old rows that hold zeros, or one vector for different identities: what a model gives for an
    unreadable image, by which the new model must not gain. Such new rows stay and count against the new
    model. Notes tell of all of it.
    """
    notes, units, keys = [], {}, {}
    given = {"old": (old_features, labels, ids), "new": (new_features, new_labels, new_ids)}
    for side, (features, *own) in given.items():
        features = table(features, f"{side} features")
        units[side] = UnitRows(features, side)
        if _odd_bytes(features, units[side].whole):
            notes.append(
                f"The {side} features are whole numbers as in 8 bits: take off their zero point (often 128) "
                "if they are quantised, and unpack packed bits (numpy.unpackbits, then 0 as -1)."
            )
        for role, values in zip(("labels", "ids"), own, strict=True):
            keys[side, role] = None if values is None else as_keys(role, values)
            if values is not None:
                one_each(keys[side, role], f"{side} {role}", len(features), f"{side} features")
    rows = _joined(keys["old", "ids"], keys["new", "ids"], [len(one) for one in units.values()], notes)
    named = [(keys[side, "labels"], row) for side, row in zip(units, rows, strict=True)]
    named = [values[row] for values, row in named if values is not None]
    if named:
        numbers, kept = _identities(named[0], named[-1], rows[0], notes)
    else:  # each image by itself, as far as one vector for several is looked for
        numbers, kept = (np.arange(len(rows[0])),) * 2
    rows = [row[kept] for row in rows]
    ties = any(unit.whole or unit.codes for unit in units.values())
    take = UnitRows.exact if ties else UnitRows.__getitem__
    before, after = (take(units[s], torch.from_numpy(row)) for s, row in zip(units, rows, strict=True))
    failed = alike(before, numbers)
    mostly = bool(2 * failed.sum() > len(failed))
    why = "features are zeros, or one vector for different identities, as from unreadable images"
    if failed.any():
        done = "kept, and nothing is called compatible by them" if mostly else "left out on both sides"
        notes.append(f"{failed.sum()} of the {len(failed)} old {why}; {done}.")
    if failed.any() and not mostly:
        before, after = (side[torch.from_numpy(~failed)] for side in (before, after))
        numbers, rows = np.unique(numbers[~failed], return_inverse=True)[1], [row[~failed] for row in rows]
    if failed := alike(after, numbers).sum():
        notes.append(f"{failed} of the {len(after)} new {why}; kept.")
    sizes = np.bincount(numbers)
    if named and (len(sizes) < 2 or sizes.max() < 2):
        one = f"all {len(numbers)} images are of one identity"
        said = one if len(sizes) < 2 else f"no identity has two images ({len(numbers)} images)"
        raise ValueError(f"{said}; give two identities or more, some of two images or more")
    return Sides(before.to(after.device), after, numbers if named else None, rows[0], tuple(notes), mostly)


def _identities(old: np.ndarray, new: np.ndarray, rows: np.ndarray, notes: list[str]) -> Pair:
    """Identities 0..K-1 of the images that have a label, and which these are; both sides must agree."""
    old, new = _of_one_kind(old, new)
    old = np.where(_no_label(old), new, old)
    wrong = np.flatnonzero((old != new) & ~_no_label(new))
    if len(wrong):
        first = wrong[0]
        raise ValueError(
            f"the labels of both sides differ in {len(wrong)} rows, first at old row {rows[first]} (old: "
            f"{old[first].item()!r}, new: {new[first].item()!r}); row i of both, or an id, must be one image"
        )
    missing = _no_label(old)
    if missing.all():
        raise ValueError("no image has a label; give labels, or none at all for a check without them")
    if missing.any():
        words = ", ".join(repr(str(word)) for word in np.unique(old[missing]))
        notes.append(
            f"{missing.sum()} images with the label {words}, which usually means that there is none, are "
            "left out; give an identity of that name another one."
        )
    names, numbers, sizes = np.unique(old[~missing], return_inverse=True, return_counts=True)
    first = int(sizes.argmax())
    if len(names) > OF_IDENTITIES and sizes[first] > max(HOARD * np.sort(sizes)[-2], len(numbers) / 20):
        notes.append(
            f"{sizes[first]} of {len(numbers)} images have the label {names[first].item()!r}, more than "
            f"{HOARD} times as many as any other; if it stands for none, leave them out."
        )
    return numbers, np.flatnonzero(~missing)


def _joined(old: np.ndarray | None, new: np.ndarray | None, sizes: list[int], notes: list[str]) -> Pair:
    """The rows of both sides that are the same images by their ids, int64 [M] each."""
    if (old is None) != (new is None):
        raise ValueError(f"only the {'new' if old is None else 'old'} side has ids; give both sides' or none")
    if old is None or new is None:
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"there are {sizes[0]} old and {sizes[1]} new rows and no ids; give features of the same "
                "images in the same order, or add ids [N] to both sides"
            )
        return (np.arange(sizes[0]),) * 2
    old, new = _of_one_kind(old, new)
    for side, ids in (("old", old), ("new", new)):
        if (twice := pd.Series(ids).duplicated().to_numpy()).any():
            raise ValueError(
                f"{twice.sum()} of the {side} ids stand there before, such as {ids[twice.argmax()].item()!r}"
                "; an id names one image, and a column of identities is one of labels (--column labels=NAME)"
            )
    place = pd.Index(new).get_indexer(pd.Index(old))
    found = np.flatnonzero(place >= 0)
    if len(found) < FOUND * min(sizes):
        raise ValueError(
            f"only {len(found)} of {min(sizes)} ids stand on the other side too (old: {old[0].item()!r}, "
            f"...; new: {new[0].item()!r}, ...); one image needs the same id in both"
        )
    if len(found) < max(sizes):
        notes.append(
            f"{len(old) - len(found)} images on the old side only and {len(new) - len(found)} on the new "
            f"side only are left out; {len(found)} are compared."
        )
    return found, place[found]


def _of_one_kind(old: np.ndarray, new: np.ndarray) -> Pair:
    # Numbers beside names are compared as text, and so are int64 and uint64, which have no common type.
    return (old, new) if old.dtype.kind == new.dtype.kind else (old.astype(str), new.astype(str))


def _no_label(labels: np.ndarray) -> np.ndarray:
    return np.isin(np.char.lower(labels.astype(str)), NO_LABEL)


def _odd_bytes(features: np.ndarray | Tensor, whole: bool) -> bool:
    """Whether these are unsigned 8-bit numbers, also as another type, or signed ones like packed bits.

    Signed numbers with their zero at zero are right as they are.
    """
    if str(features.dtype).endswith("uint8"):
        return True
    part = as_tensor(features[:BLOCK], "features").double()
    low, high = float(part.min()), float(part.max())
    return whole and (0 <= low < high <= 255 or (-128 <= low < high <= 127 and float(part.std()) > BYTES))


def alike(unit: Tensor, labels: np.ndarray) -> np.ndarray:
    """Which rows are zeros, or one vector that several identities share, bool [N].

    Rows are compared by a few random projections, rounded: what differs in the last bits is the same vector.
    """
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(unit.shape[1], DIRECTIONS, generator=generator, dtype=torch.float64)
    parts = [part.cpu().double() @ directions for part in unit.split(BLOCK)]
    cells = pd.DataFrame(np.round(torch.cat(parts).numpy() / CELL).astype(np.int64))
    label = cells.assign(label=labels).groupby(list(cells.columns))["label"]
    shared = (label.transform("size") >= REPEATED) & (label.transform("nunique") >= OF_IDENTITIES)
    return (shared | (cells == 0).all(axis=1)).to_numpy()


def metric_far(metric: str) -> float | None:
    """The false accept rate in a metric's name; None for one without."""
    return float(metric.removeprefix("tar@far=")) if metric.startswith("tar@far=") else None


def choose_metric(asked: str | None, labels: np.ndarray, queries: np.ndarray) -> str:
    """The metric of the criterion: the one asked for, or what the number of pairs can resolve."""
    sizes = np.bincount(labels)
    impostors = len(queries) * len(labels) - int(np.bincount(labels[queries], minlength=len(sizes)) @ sizes)
    if len(queries) == len(labels):
        impostors //= 2  # those of old/old are unordered then: the fewest of the three tests
    if asked is None:
        enough = impostors * metric_far(HEADLINE) >= RESOLVED and len(sizes) >= FEWEST
        return HEADLINE if enough else "map"
    metric, far = str(asked).strip().lower(), None
    if metric in ("map", *(f"rank{k}" for k in RANKS)):
        return metric
    with suppress(ValueError):
        far = metric_far(metric)
    if far is None or not 0 < far <= 1:
        raise ValueError(
            f"the metric {asked!r} is not known; choose map, rank1, rank5, or tar@far=F with F a fraction "
            f"above 0 and at most 1, such as {HEADLINE}"
        )
    if far * impostors < 1:
        raise ValueError(
            f"{metric_title(tar_name(far))} cannot be measured with {impostors:,} pairs of different "
            "identities, of which not one may be accepted; choose a larger FAR or the metric map"
        )
    return tar_name(far)


def choose_queries(labels: np.ndarray, queries: int | None, seed: int) -> np.ndarray:
    """The rows that ask: all, or some at random of those that have a right answer.

    Drawn singly and not by identity: the more identities ask, the narrower an interval over identities.
    """
    most = max(FEWEST_QUERIES, PAIRS_ASKED // len(labels)) if queries is None else queries
    if len(labels) <= most:
        return np.arange(len(labels))
    able = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(able) <= most:
        return able
    return np.sort(np.random.default_rng(seed).choice(able, most, replace=False))


def choose_units(labels: np.ndarray, queries: np.ndarray, most: int) -> np.ndarray:
    """What the bootstrap draws, int64 [N]: the identities, or at most about `most` of them and groups.

    The table of all identities and draws would fill the memory where a gallery holds hundreds of thousands
    of people. Those without a query only count as impostors, and many of them are drawn together.

    >>> choose_units(np.array([0, 1, 2, 3, 4, 4]), np.array([4, 5]), most=3).tolist()
    [1, 2, 1, 2, 0, 0]
    """
    if labels.max() < most:
        return labels
    asked = np.bincount(labels[queries], minlength=labels.max() + 1) > 0
    groups = (np.cumsum(~asked) - 1) % max(1, most - asked.sum())
    return np.where(asked, np.cumsum(asked) - 1, asked.sum() + groups)[labels]


def choose_pairwise(labels: np.ndarray, seed: int) -> np.ndarray:
    """The rows between which the constraints are counted: all, or some of random identities."""
    if len(labels) <= PAIRWISE:
        return np.arange(len(labels))
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    turn = generator.permutation(labels.max() + 1)[labels[shuffled]]
    order = shuffled[np.argsort(turn, kind="stable")]
    within = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    return np.sort(order[(within < EACH) & (np.bincount(labels)[labels[order]] > 1)][:PAIRWISE])

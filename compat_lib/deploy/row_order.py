"""Which row of a file of features belongs to which image: found by names, never assumed from the order."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd

from compat_lib.deploy.feature_files import FeatureTable

PARTS = {"train", "val", "test", "query"}
NAMED = 10  # images without a feature that an error names


@dataclass(frozen=True, eq=False)
class Aligned:
    """Rows of a file of features in the order of the images of a folder."""

    features: np.ndarray  # float32 [N, D], one row for each image
    labels: np.ndarray  # int64 [N], the number of each image's class folder
    classes: tuple[str, ...]  # names of the class folders, sorted: the order in which data sets number them
    rows: np.ndarray  # int64 [N], where each row stood in the file
    proof: str  # how it is known which row belongs to which image, as the end of a sentence
    left_over: int  # rows of the file that belong to none of the images


def align(table: FeatureTable, files: Sequence[str], *, trust_order: bool = False) -> Aligned:
    """The features of these images in their order, and the proof.

    Args:
        table: its ids are paths of images, as much of each as tells them apart; its labels, if any, are names
            of the class folders, or any numbers that stand for one folder each.
        files: N paths of images, "train/anna/1.png" or "anna/1.png".
        trust_order: take row i for image i where there are no ids.

    What leaves a doubt is a ValueError: images without a row, no ids, two rows of one image, ids that do not
    say the folder, labels that do not agree with the folders.

    >>> table = FeatureTable("old.csv", np.eye(3), ids=["bert/1.png", "carl/1.png", "anna/1.png"])
    >>> found = align(table, ["anna/1.png", "bert/1.png"])
    >>> found.rows.tolist(), found.labels.tolist(), found.left_over, found.proof
    ([2, 0], [0, 1], 1, 'by their ids')
    """
    try:
        images = _parts(files)
        if images.shape[1] < 2 or (images[1] == "").any():
            raise ValueError("give images with their class folders, such as 'anna/1.png'")
        folders = images[1].to_numpy(str)
        if table.ids is not None:
            rows, proof = _matched(_parts(table.ids), images, files), "by their ids"
        elif not isinstance(trust_order, bool):  # such as the text "no", which would mean yes
            raise ValueError(f"trust_order is {trust_order!r}; give True or False")
        elif trust_order and len(table.features) == len(files):
            rows, proof = np.arange(len(files)), "by their order, which you vouch for"
        else:
            raise ValueError(
                f"nothing says which of the {len(table.features)} rows belongs to which of the {len(files)} "
                "images, since there are no ids; save the path of each image with its feature, or, if there "
                "is one row for each image and you know that they follow the class folders by name, and in "
                "each the files by name, say so with trust_order=True (in Python and in notebook 07)"
            )
        labels = np.full(len(rows), "") if table.labels is None else np.asarray(table.labels)[rows]
        known = np.flatnonzero(labels.astype(str) != "")  # a missing one says nothing
        if len(known):
            _check_classes(labels[known].astype(str), folders[known], [files[row] for row in known])
            proof += ", and their labels agree with the class folders"
    except ValueError as error:
        raise ValueError(f"{table.path}: {error}") from error
    classes, numbered = np.unique(folders, return_inverse=True)
    left_over = len(table.features) - len(files)
    return Aligned(table.features[rows], numbered, tuple(classes.tolist()), rows, proof, left_over)


def _parts(paths: Iterable) -> pd.DataFrame:
    """Parts of paths from their end, a column each: the file, its folder, ...; "" where there is none."""
    texts = (unicodedata.normalize("NFC", str(path)).replace("\\", "/").split("/") for path in paths)
    parts = ([part for part in reversed(text) if part not in ("", ".")] for text in texts)
    return pd.DataFrame(zip_longest(*parts, fillvalue="")).T


def _matched(ids: pd.DataFrame, images: pd.DataFrame, files: Sequence[str]) -> np.ndarray:
    """The row of each image, by as many parts of their paths as both have, or by fewer."""
    ids = ids.reindex(columns=images.columns, fill_value="").add_prefix("id")
    images = images.add_prefix("image")
    if not ids["id0"].str.contains(".", regex=False).any():  # the ids have no suffixes
        images["image0"] = images["image0"].str.replace(r"\.[^.]*$", "", regex=True)
    first = "/".join(filter(None, ids.iloc[0, ::-1]))
    best = 0  # images that were found at the depth whose reason is kept
    reason = (
        f"no id is the name of an image (the first id: {first!r}, the first image: {files[0]!r}); give the "
        "path of each image as its id, at least class/file"
    )
    for depth in range(images.shape[1], 0, -1):
        ours, theirs = list(images.columns[:depth]), list(ids.columns[:depth])
        shared = images.duplicated(ours)
        known_ids = ids[ids[theirs[-1]] != ""].reset_index(names="row")
        pairs = images[~shared].reset_index(names="image").merge(known_ids, left_on=ours, right_on=theirs)
        for one, other in zip(images.columns[depth:], ids.columns[depth:], strict=True):
            # a folder further up that is another class, or another part of the data, is no agreement
            known = set(images[one]) - {""}
            other_folder = pairs[other].isin(PARTS if known <= PARTS else known) & (pairs[one] != "")
            pairs = pairs[~other_folder | (pairs[one] == pairs[other])]
        pairs = pairs.sort_values(["image", "row"])
        twice = pairs[pairs["image"].duplicated(keep=False)]
        missing = np.setdiff1d(images.index, pairs["image"])
        if not len(twice) and not len(missing):
            return pairs["row"].to_numpy()
        if len(images) - len(missing) <= best:
            continue
        best = len(images) - len(missing)
        if shared.any():
            names = images[ours[::-1]].agg("/".join, axis=1)
            alike = np.flatnonzero(names == names[shared.idxmax()])
            reason = (
                f"{names[alike[0]]!r} could be {files[alike[0]]!r} or {files[alike[1]]!r}; give ids with as "
                "much of the path as tells them apart, and with the suffix"
            )
        elif len(twice):
            reason = (
                f"the ids of rows {twice['row'].iloc[0]} and {twice['row'].iloc[1]} name the same image, "
                f"{files[twice['image'].iloc[0]]!r}; keep one row for each image"
            )
        else:
            reason = (
                f"{len(missing)} of {len(images)} images have no feature, the first "
                f"{', '.join(repr(files[row]) for row in missing[:NAMED])}; "
                "extract the features of these as well, or take the images out of the folder"
            )
    raise ValueError(reason)


def _check_classes(labels: np.ndarray, folders: np.ndarray, files: Sequence[str]) -> None:
    """Refuse labels that are neither the names of the class folders nor numbers that stand for one each."""
    wrong = np.flatnonzero(labels != folders)
    if len(wrong) and not all(label.lstrip("-").isdigit() for label in np.unique(labels)):
        raise ValueError(
            f"{len(wrong)} of {len(labels)} labels are not the class folder's name, the first at "
            f"{files[wrong[0]]!r}: the label is {str(labels[wrong[0]])!r}; correct the labels, move the "
            "images, or rename the folders"
        )
    pairs = pd.DataFrame({"label": labels, "class folder": folders}).drop_duplicates()
    for one, other in (("label", "class folder"), ("class folder", "label")):
        for name, group in pairs.groupby(one)[other]:
            if len(group) > 1:
                raise ValueError(
                    f"the {one} {name} stands for {len(group)} {other}s ({', '.join(group[:5])}); numbers "
                    "and folders must belong together one to one: correct the labels, or leave them out"
                )

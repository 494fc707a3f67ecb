"""Which row of a user's features belongs to which image: found by names, never assumed from the order."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from compat_lib.old_arrays import names

PARTS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Aligned:
    """Rows of a user's features in the order of the images of a folder.

    Args:
        rows: int64 [N], the row of each image.
        labels: int64 [N], the number of each image's class folder.
        classes: names of the class folders, sorted: the order in which data sets number them.
        proof: how it is known which row belongs to which image, as the end of a sentence.
        left_over: rows that belong to none of the images.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    proof: str
    left_over: int


def align(files: Sequence[str], count: int, ids=None, labels=None, *, trust_order: bool = False) -> Aligned:
    """Which row of the features belongs to each image, and the proof.

    Args:
        files: N paths of images, "train/anna/1.png" or "anna/1.png", in the order of the data set.
        count: rows of the features.
        ids: names of the images, one a row: as much of the path as tells them apart. None: there are none.
        labels: names or numbers of the classes, one a row, or None. Names must be those of the class folders,
            numbers may be any as long as each stands for one folder.
        trust_order: take row i for image i where there are no ids.
    Raises:
        ValueError: "Nothing says which row belongs to which image: there are no ids. ...", "There are 90 rows
            of features without ids and 100 images. ...", "ids have 90 rows but features 100. ...", and what
            `match_images` and `check_classes` refuse.

    >>> found = align(["anna/1.png", "bert/1.png"], 3, ["bert/1.png", "carl/1.png", "anna/1.png"])
    >>> found.rows.tolist(), found.labels.tolist(), found.left_over, found.proof
    ([2, 0], [0, 1], 1, 'by their ids')
    """
    files = list(files)
    folders = [(["", "", *_parts(file)])[-2] for file in files]
    if not files or not all(folders):
        raise ValueError("Give at least one image, and each with its class folder, such as 'anna/1.png'.")
    for name, values in (("ids", ids), ("labels", labels)):
        if values is not None and len(values) != count:
            raise ValueError(f"{name} have {len(values)} rows but features {count}. Give one for each row.")
    if ids is not None:
        rows, proof = match_images(ids, files), "by their ids"
    elif count != len(files):
        raise ValueError(
            f"There are {count} rows of features without ids and {len(files)} images. Save the path of each "
            "image with its feature; nothing else can tell which ones are missing."
        )
    elif trust_order:
        rows, proof = np.arange(count), "by their order, which you vouch for"
    else:
        raise ValueError(
            "Nothing says which row belongs to which image: there are no ids. Save the path of each image "
            "with its feature. If you know that the rows follow the class folders by name, and in each the "
            "files by name, say so with trust_order=True."
        )
    if labels is not None:
        check_classes(names("labels", labels)[rows], folders, files)
        proof += ", and their labels agree with the class folders"
    classes, numbered = np.unique(folders, return_inverse=True)
    return Aligned(rows, numbered.astype(np.int64), tuple(classes.tolist()), proof, count - len(files))


def match_images(ids, files: Sequence[str]) -> np.ndarray:
    """The row of each image, int64 [files], by comparing paths from their end.

    As much of the path is compared as both have: part, class and file, then class and file, then the file's
    name alone where no two images share it. Where no id has a suffix, those of the files do not count.

    Args:
        ids: names of images, one a row of the features; rows without an image are passed over.
        files: paths of images, "train/anna/1.png" or "anna/1.png".
    Raises:
        ValueError: "2 of 100 images have no feature, the first 'train/anna/1.png'. ...", "The ids of rows 4
            and 9 name the same image, 'anna/1.png'. ...", "'1.png' lies in several class folders, ..." or "No
            id is the name of an image ..."

    >>> match_images(["/old/anna/2.png", "/old/anna/1.png"], ["anna/1.png", "anna/2.png"]).tolist()
    [1, 0]
    """
    rows, images = [_parts(one) for one in names("ids", ids)], [_parts(file) for file in files]
    if not any("." in parts[-1] for parts in rows if parts):
        images = [[*parts[:-1], parts[-1].rsplit(".", 1)[0]] for parts in images]
    best, reason = 0, ""
    for depth in range(max(map(len, images)), 0, -1):
        place, refusal = _matched(rows, images, depth)
        if not refusal:
            return place
        found = int((place >= 0).sum())
        if found > best:
            best, reason = found, refusal
    if best:
        raise ValueError(reason)
    first = "/".join(rows[0]) if rows else "none"
    raise ValueError(
        f"No id is the name of an image (the first id: {first!r}, the first image: {files[0]!r}). Give the "
        "path of each image as its id, at least class/file."
    )


def _parts(path) -> list[str]:
    return [part for part in str(path).replace("\\", "/").split("/") if part not in ("", ".")]


def _matched(rows: list[list[str]], images: list[list[str]], depth: int) -> tuple[np.ndarray, str]:
    """Rows of the images by the last `depth` parts of their paths, -1 for none; and why that will not do."""
    place = np.full(len(images), -1, dtype=np.int64)
    wanted: dict[str, int] = {}
    shared = ""  # a name that several images have
    for image, parts in enumerate(images):
        key = "/".join(parts[-depth:])
        shared = key if key in wanted else shared
        wanted[key] = image
    # a folder further up that is another class, or another part of the data, is no agreement
    levels = range(depth + 1, max(map(len, images)) + 1)
    above = {level: {parts[-level] for parts in images if len(parts) >= level} for level in levels}
    above = {level: set(PARTS) if one <= set(PARTS) else one for level, one in above.items()}
    for row, parts in enumerate(rows):
        image = wanted.get("/".join(parts[-depth:])) if len(parts) >= depth else None
        if image is None or _elsewhere(parts, images[image], above):
            continue
        theirs = images[image]
        if place[image] >= 0 and not shared:
            return place, (
                f"The ids of rows {place[image]} and {row} name the same image, {'/'.join(theirs)!r}. Keep "
                "one row for each image."
            )
        place[image] = row
    if shared:
        return place, (
            f"{shared!r} lies in several class folders, and the ids do not say in which. Give ids with the "
            "folder: class/file."
        )
    missing = np.flatnonzero(place < 0)
    if len(missing):
        first = "/".join(images[missing[0]])
        return place, (
            f"{len(missing)} of {len(images)} images have no feature, the first {first!r}. Extract the old "
            "features of these as well, or take the images out of the folder."
        )
    return place, ""


def _elsewhere(parts: list[str], theirs: list[str], above: dict[int, set[str]]) -> bool:
    shared = min(len(parts), len(theirs))
    return any(
        parts[-level] != theirs[-level] and parts[-level] in known
        for level, known in above.items()
        if level <= shared
    )


def check_classes(labels, folders: Sequence[str], files: Sequence[str]) -> None:
    """Refuses labels that do not agree with the class folders in which the same images lie.

    Args:
        labels: [N], names or numbers of classes, one for each image.
        folders: [N], names of class folders.
        files: [N], paths of the images, for the message.
    Raises:
        ValueError: "2 of 100 labels are not the class folder's name, the first at 'anna/1.png': ..." or "The
            label 7 stands for 2 class folders (anna, bert). ..."

    >>> check_classes([7, 7, 3], ["anna", "anna", "bert"], ["anna/1.png", "anna/2.png", "bert/1.png"])
    """
    labels, folders = names("labels", labels), names("class folders", folders)
    wrong = np.flatnonzero(labels != folders)
    if not len(wrong):
        return
    if not all(label.lstrip("-").isdigit() for label in np.unique(labels).tolist()):
        raise ValueError(
            f"{len(wrong)} of {len(labels)} labels are not the class folder's name, the first at "
            f"{str(files[wrong[0]])!r}: the label is {str(labels[wrong[0]])!r}. Correct the labels, move the "
            "images, or rename the folders."
        )
    pairs = np.unique(np.stack([labels, folders]), axis=1)
    for one, other, what, where in ((0, 1, "label", "class folders"), (1, 0, "class folder", "labels")):
        values, times = np.unique(pairs[one], return_counts=True)
        if times.max() > 1:
            value = values[times.argmax()]
            found = ", ".join(pairs[other][pairs[one] == value][:5])
            raise ValueError(
                f"The {what} {value} stands for {times.max()} {where} ({found}). Numbers and folders must "
                "belong together one to one: correct the labels, or leave them out."
            )

"""Image folders: train/<class>/* and test/<class>/*, your own or CIFAR-100."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import trees
from .decoding import Size, UnreadableImages, printable, smooth_resize
from .images import VAL_SHARE, ImageSet, Place, Splits, data_root, with_validation

_log = logging.getLogger(__name__)
PARTS = ("train", "test", "val", "query")
_Rows = tuple[ImageSet, Sequence[int]]  # images of a part
_LAYOUT = (
    "train/<class>/<images>, test/<class>/<images> and, if you like, val/<class>/<images> and "
    "query/<class>/<images>"
)


def folder(
    root: Place,
    *,
    path: str | os.PathLike,
    size: Size = 32,
    seed: int = 0,
    stream: bool = False,
    skip_unreadable: bool = False,
) -> Splits:
    """Return the images of a folder with train/<class>/*, test/<class>/* and optionally val/<class>/*.

    Images are decoded once into a memory-mapped cache under the data root, or with `stream` batch by batch,
    without a cache; the folder itself is only read. Class folders are numbered in sorted order, each part for
    itself. What is left out (other kinds of files, folders inside classes, other parts) is said in the log.

    With query/<class>/* these images are the queries of the protocols re-identification and landmarks, which
    ask the gallery test/: they are part of the test images, and the extra "query" (bool) tells which.

    With `skip_unreadable` images that cannot be read are left out and named, in the log and in
    `Splits.skipped`; otherwise an error names them all. Without val/, see `with_validation`.

    Images are uint8 [N, 3, H, W], RGB. An OSError says that the data root is on a full or read-only disk.
    """
    place = Path(path).expanduser()
    name, skipped = printable(place.name) or "folder", [] if skip_unreadable else None
    return _splits(name, place, data_root(root) / "cache", size, seed, stream, skipped=skipped)


def cifar100(
    root: Place, *, size: Size = 32, seed: int = 0, stream: bool = False, validation: float = VAL_SHARE
) -> Splits:
    """Return CIFAR-100, 100 classes of 500 training and 100 test photographs, held out as in `folder`.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009). Class folders in
    alphabetical order are the official labels.

    `<root>/cifar100/{train,test}/<class>/*` is read if it is there, otherwise torchvision downloads its own
    copy, 32 x 32, to the data root; that one always is in memory.
    """
    base = data_root(root)
    place = base / "cifar100"
    if place.is_dir():
        return _splits("cifar100", place, base / "cache", size, seed, stream, validation)
    parts = []
    for train in (True, False):
        source = trees.download("CIFAR100", base, f"{place}/{{train,test}}/<class>/*.png", train=train)
        labels, order = torch.tensor(source.targets).sort(stable=True)  # class after class, as in a folder
        images = (Image.fromarray(image) for image in source.data[order.numpy()])
        pixels = torch.from_numpy(np.stack([smooth_resize(image, size) for image in images]))
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
        parts.append(ImageSet(pixels, labels, tuple(source.classes)))
    return with_validation("cifar100", *parts, seed=seed, share=validation)


def _splits(
    name: str,
    place: Path,
    cache: Path,
    size: Size,
    seed: int,
    stream: bool,
    share: float = VAL_SHARE,
    skipped: list[str] | None = None,
) -> Splits:
    for needed in ("train", "test"):
        trees.needed_folder(place, needed, expected=_LAYOUT)
    found = {path.name: path for path in trees.subfolders(place)}
    others = [printable(other) for other in found if other not in PARTS]
    present = [found[part] for part in PARTS if part in found]
    for path in (place, *present):
        if count := len(trees.list_images(path)):
            others.append(f"{count} image(s) directly in {printable(path.name)}")
    trees.tell_left_out(place, others, _LAYOUT)
    parts, unreadable = {}, []
    for path in (path for path in present if path.name != "query"):
        classes = trees.class_folders(path, _LAYOUT)
        asking = trees.subfolders(found["query"]) if path.name == "test" and "query" in found else []
        classes |= {f"query/{folder.name}": folder for folder in asking}
        try:
            parts[path.name] = trees.decode_classes(classes, cache, size=size, stream=stream, skipped=skipped)
        except UnreadableImages as error:
            unreadable += error.files
    if unreadable:
        raise UnreadableImages(unreadable)
    if "query" in found:
        parts["test"] = _with_queries(parts["test"])
    if skipped:
        _log.warning("%s: skipped %d images that cannot be read: %s", name, len(skipped), ", ".join(skipped))
    if not stream:
        train, test = parts["train"], parts["test"]
        for part in (parts[part] for part in ("val", "test") if part in parts):
            _tell_seen(name, "training images too", (train, range(len(train))), (part, range(len(part))))
        if "query" in found:
            gallery, queries = (
                (test.extras["query"] == one).nonzero().flatten().tolist() for one in (False, True)
            )
            _tell_seen(name, "in the gallery too", (test, gallery), (test, queries))
    made = Splits(name, **parts) if "val" in parts else with_validation(name, **parts, seed=seed, share=share)
    return replace(made, skipped=tuple(skipped or ()))


def _tell_seen(name: str, where: str, there: _Rows, asked: _Rows) -> None:
    """Warn of rows asked for that are among the others as well, pixel by pixel: they look too well found."""
    # One row of pixels tells nearly all apart; the others are compared whole.
    middle = asked[0].images.shape[2] // 2
    keys = [[part.images[row, 1, middle].numpy().tobytes() for row in rows] for part, rows in (there, asked)]
    alike = set(keys[0]) & set(keys[1])
    same, found = (
        [row for row, key in zip(rows, own, strict=True) if key in alike]
        for own, (_, rows) in zip(keys, (there, asked), strict=True)
    )
    whole = {there[0].images[row].numpy().tobytes() for row in same}
    if seen := [asked[0].names[row] for row in found if asked[0].images[row].numpy().tobytes() in whole]:
        _log.warning(
            "%s: %d of %d images of %s are %s, pixel by pixel, which makes what is measured too good; "
            "leave them out of one of the two, such as %s",
            name,
            len(seen),
            len(asked[1]),
            seen[0].split("/")[0],
            where,
            ", ".join(map(printable, seen[:3])),
        )


def _with_queries(test: ImageSet) -> ImageSet:
    """Classes "ant" and "query/ant" as one class, with the extra "query" in place of the second name."""
    names = [name.removeprefix("query/") for name in test.classes]
    classes = tuple(sorted(set(names)))
    label_of = {name: label for label, name in enumerate(classes)}
    labels = torch.tensor([label_of[name] for name in names])[test.labels]
    query = torch.tensor([name.startswith("query/") for name in test.classes])[test.labels]
    return ImageSet(test.images, labels, classes, {"query": query}, test.names)

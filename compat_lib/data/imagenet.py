"""ImageNet (ILSVRC 2012) and Places365: millions of files, listed without an object for each, streamed."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .decoding import Size, printable
from .images import ImageSet, Place, Splits, data_root, with_validation
from .lists import listed_set, read_list, refuse_line
from .trees import class_folders, decode_classes, list_images, needed_folder

VAL_SHARE = 0.01  # of the training images of each class: 12,800 of ImageNet, 18,000 of Places365
_DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_KAGGLE = "LOC_val_solution.csv"


def imagenet(
    root: Place, *, path: Place = None, size: Size = 224, seed: int = 0, validation: float = VAL_SHARE
) -> Splits:
    """Return ImageNet's 1,281,167 training images, streamed; its 50,000 validation images are the test.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (IJCV 2015). openBCT, FCT
    and BT2 retrieve within the validation images (protocol leave-one-out).

    Where `val` is flat, its classes are in Kaggle's list, or torchvision reads them from the development kit.
    Classes are the WordNet numbers, in their order; images are cut by `centre_crop`.
    """
    base = data_root(root) / "imagenet" if path is None else Path(path).expanduser()
    layout = "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG"
    train, val = (needed_folder(base, part, expected=layout) for part in ("train", "val"))
    test = _flat(base, size) if list_images(val) else _tree(val, layout, size)
    train = _tree(train, layout, size)
    return with_validation("imagenet", train, test, seed=seed, share=validation, looked=VAL_SHARE)


def places365(
    root: Place, *, path: Place = None, size: Size = 224, seed: int = 0, validation: float = VAL_SHARE
) -> Splits:
    """Return Places365-Standard's 1,803,460 training images, streamed; its 36,500 others are the test.

    Source: Zhou et al., "Places: A 10 million Image Database for Scene Recognition" (TPAMI 2018). openBCT
    retrieves within the validation images (protocol leave-one-out).

    `<root>/places365` holds the archive with the "easy directory structure", or what torchvision unpacks:
    lists, and images of 256 pixels or the large ones. Classes are the folders or the list's categories, in
    the order of their numbers, which is one order; images are cut by `centre_crop`.
    """
    base = data_root(root) / "places365" if path is None else Path(path).expanduser()
    layout = "train/airfield/*.jpg and val/airfield/*.jpg"
    if (base / "train").is_dir():
        parts = (needed_folder(base, part, expected=layout) for part in ("train", "val"))
        train, test = (_tree(place, layout, size) for place in parts)
    else:
        names = _categories(base / "categories_places365.txt")
        folders = ("data_256_standard", "data_256", "data_large_standard", "data_large")
        train = _by_list(base, "places365_train_standard.txt", folders, names, size)
        test = _by_list(base, "places365_val.txt", ("val_256", "val_large"), names, size)
    return with_validation("places365", train, test, seed=seed, share=validation, looked=VAL_SHARE)


def centre_crop(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Return the middle of an image, (height, width), once its short side is 256/224 of what is wanted.

    The usual transform of an evaluation on ImageNet, bilinear, as torchvision's Resize(256) and
    CenterCrop(224) give it. Augmentation in a training takes this crop and not the whole image.
    """
    (height, width), (wide, high) = size, image.size
    scaled_width, scaled_height = (side * 256 // 224 for side in (width, height))
    if wide * height <= high * width:
        scaled = scaled_width, scaled_width * high // wide
    else:
        scaled = scaled_height * wide // high, scaled_height
    left, top = (round((have - want) / 2) for have, want in zip(scaled, (width, height), strict=True))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def _tree(place: Path, layout: str, size: Size) -> ImageSet:
    return decode_classes(class_folders(place, layout), size=size, shrink=centre_crop, stream=True)


def _flat(base: Path, size: Size) -> ImageSet:
    """The validation images in one folder, their classes from a list."""
    source, wnid_of = _listed_classes(base)
    names = [entry.name for entry in list_images(base / "val")]
    stems = [Path(name).stem for name in names]
    if odd := set(stems) ^ set(wnid_of):
        raise ValueError(
            f"{printable(base / 'val')} has {len(names)} images, {printable(source)} lists {len(wnid_of)}, "
            f"and {min(odd)} is in one of them alone; unpack the images anew"
        )
    rows = pd.DataFrame({"file": names, "class": [wnid_of[stem] for stem in stems]})
    return listed_set(base / "val", rows, size=size, resize=centre_crop)


def _listed_classes(base: Path) -> tuple[Path, dict[str, str]]:
    """The list of the validation images that is there, and image -> WordNet number."""
    if (source := base / _KAGGLE).is_file():
        rows = read_list(source, {"image": str, "prediction": str}, header=True)
        first = rows.prediction.str.split().str[0]
        if (unnamed := rows.image[first.isna()]).any():
            raise ValueError(f"{printable(source)} names no class of {unnamed.iloc[0]}; fetch the list anew")
        return source, dict(zip(rows.image, first, strict=True))
    from torchvision.datasets import imagenet as reader  # takes a second, and is not needed elsewhere

    try:
        if not (base / reader.META_FILE).is_file():
            reader.parse_devkit_archive(base)
        wnids = reader.load_meta_file(base)[1]
    except Exception as error:  # absent: a RuntimeError; damaged: whatever torch or tarfile raises
        raise FileNotFoundError(
            f"{printable(base / 'val')} is flat, and no list says of which class its images are: put "
            f"{_DEVKIT} or {_KAGGLE} beside it, or the images into folders val/<wnid> "
            f"({str(error).partition(chr(10))[0]})"
        ) from error
    return base / _DEVKIT, {f"ILSVRC2012_val_{n:08d}": wnid for n, wnid in enumerate(wnids, start=1)}


def _categories(path: Path) -> list[str]:
    """The names of the classes, in the order of their numbers."""
    rows = read_list(path, {"category": str, "class": np.int64}).sort_values("class", ignore_index=True)
    if (gap := (rows["class"] != rows.index).to_numpy()).any():
        row = int(gap.argmax())
        raise ValueError(
            f"{printable(path)} should number its {len(gap)} categories from 0 on, but has "
            f"{rows['class'][row]} in the place of {row}; fetch the list anew"
        )
    return rows.category.str.removeprefix("/").tolist()


def _by_list(base: Path, name: str, folders: tuple[str, ...], classes: list[str], size: Size) -> ImageSet:
    place = needed_folder(base, *folders, expected="the images unpacked there")
    rows = read_list(base / name, {"file": str, "class": np.int64})
    labels, known = rows["class"], f"categories_places365.txt names 0 to {len(classes) - 1}"
    wrong = ~labels.between(0, len(classes) - 1)
    refuse_line(base / name, wrong, lambda row: f"has the class {labels[row]}, but {known}")
    rows["file"], rows["class"] = rows.file.str.removeprefix("/"), pd.Categorical.from_codes(labels, classes)
    return listed_set(place, rows, size=size, resize=centre_crop)

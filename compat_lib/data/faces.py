"""Sets of faces at the papers' size: MS1Mv3 tested on IJB, and CelebA tested on LFW."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from compat_lib.names import check_choice

from .alignment import aligned_images
from .cache import cached_arrays
from .decoding import Size, printable, smooth_resize
from .encoded import EncodedImages
from .ijb import GALLERIES, ijb
from .images import DATA_VARIABLE, ImageSet, Place, Splits, data_root, seeded_generator
from .recordio import RecordFile, unpacked
from .trees import class_folders, decode_classes, download

VAL_IDENTITIES = 200
IDENTITIES = "identities"  # the test part is identities held out of training
# Left, top, right, bottom of 250 x 250: eyes and mouth are then about where CelebA has them.
LFW_BOX = (55, 46, 195, 186)
_RULES = 1  # part of the cache's digest: raise it whenever the same files give other rows


def ms1mv3(
    root: Place,
    *,
    size: Size = 112,
    seed: int = 0,
    path: Place = None,
    test: str = "ijbc",
    test_path: Place = None,
    validation: int = VAL_IDENTITIES,
) -> Splits:
    """Return MS1Mv3 (93,431 identities, 5,179,510 faces of 112 x 112), tested on IJB-C, or another such set.

    Source: Deng et al., "Lightweight face recognition challenge" (ICCVW 2019), as InsightFace distributes it.
    Images are encoded, RGB, in the file's order, on which the published splits depend: take `shuffle_seed`
    None for these. With IJB the lists of its protocol come with them. Options: docs/data_sets.md.
    """
    check_choice("test", test, (*GALLERIES, IDENTITIES))
    if validation < 2 and (validation != 0 or test == IDENTITIES):
        allowed = "at least 2 identities" + (" to test on" if test == IDENTITIES else ", or 0 for none")
        raise ValueError(f"validation must be {allowed}; got {validation}")
    base = data_root(root)
    place = base / "ms1m-retinaface-t1" if path is None else Path(path).expanduser()
    if test == IDENTITIES:
        return Splits("ms1mv3", *_held_out(records(place, base, size), validation, seed, parts=2))
    there = base / test.upper() if test_path is None else Path(test_path).expanduser()
    images, lists = ijb(there, test, size=size)  # first: it is small, and what it lacks is soon said
    return Splits("ms1mv3", *_held_out(records(place, base, size), validation, seed), images, lists)


def records(place: Path, base: Path, size: Size) -> ImageSet:
    """Return the images of `train.rec` in a folder, in the order of their numbers.

    The first record says where the images end, when it is without an image itself, as InsightFace writes it;
    otherwise every record is one. Rows and labels are cached: reading them means looking into all of a file
    of tens of gigabytes.
    """
    file = RecordFile(place / "train.rec")
    recipe = {"rules": _RULES, "records": str(place.absolute())}
    for one in (file.path, file.path.with_suffix(".idx")):
        if one.is_file():
            stat = one.stat()
            recipe[one.name] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]

    def write(folder: Path) -> None:
        offsets, labels = _rows(file)
        np.save(folder / "offsets.npy", offsets)
        np.save(folder / "labels.npy", labels)

    arrays = cached_arrays(base / "cache", recipe, write)
    labels = torch.from_numpy(arrays["labels"])
    total = hashlib.sha256(f"{file.path.stat().st_size}".encode())
    total.update(memoryview(arrays["offsets"]).cast("B"))
    images = EncodedImages(arrays["offsets"], file, size=size, digest=total.hexdigest())
    return ImageSet(images, labels, tuple(map(str, range(int(labels.max()) + 1))))


def _rows(file: RecordFile) -> tuple[np.ndarray, np.ndarray]:
    """int64 [N], [N]: byte offset and label of every image."""
    numbers, offsets = file.index
    header, image = unpacked(file.payload(int(offsets[numbers.argmin()])))
    chosen = np.ones(len(numbers), bool)
    if not image:
        last = float(header[0]) - 1  # float32 has the even numbers up to 2^25, and Glint360K's 17,091,658
        chosen = (numbers >= 1) & (numbers <= last)
        if not chosen.any() or chosen.sum() != last:
            raise ValueError(
                f"the first record of {printable(file.path)} tells of {last:.0f} images, its index names "
                f"{chosen.sum()} of them; unpack or copy the set anew"
            )
    order = np.argsort(numbers[chosen], kind="stable")
    numbers, offsets = numbers[chosen][order], offsets[chosen][order]
    found = file.first_labels(offsets)
    wrong = ~((found >= 0) & (found < 2**24) & (found == np.floor(found)))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{printable(file.path)}, record {numbers[row]} has the label {found[row]}, which is no class "
            "number; unpack or copy the set anew"
        )
    labels = found.astype(np.int64)
    if (absent := np.flatnonzero(np.bincount(labels) == 0)).size:
        raise ValueError(
            f"{printable(file.path)} has {labels.max() + 1} classes, but class {absent[0]} has no image; "
            "unpack or copy the set anew, or number its classes without gaps"
        )
    return offsets, labels


def _held_out(images: ImageSet, validation: int, seed: int, parts: int = 1) -> list[ImageSet]:
    """Training and one or two more parts of `validation` identities each; 0: training and a sample of it."""
    held = validation * parts
    if images.num_classes - held < 2:
        raise ValueError(
            f"validation takes {held} of {images.num_classes} identities, but training needs at least 2; "
            "give a smaller number"
        )
    order = torch.randperm(images.num_classes, generator=seeded_generator("faces", seed, "validation"))
    if not validation:
        return [images, images.compact(torch.isin(images.labels, order[:VAL_IDENTITIES]))]
    kept = images.compact(~torch.isin(images.labels, order[:held]))
    groups = order[:held].split(validation)
    return [kept, *(images.compact(torch.isin(images.labels, group)) for group in groups)]


def middle_of_lfw(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Return the fixed box of one of LFW's images at (height, width)."""
    return smooth_resize(image.crop(LFW_BOX), size)


def celeba_lfw(root: Place, *, size: Size = 112, seed: int = 0, validation: int = VAL_IDENTITIES) -> Splits:
    """Return the people of CelebA for training, and those of LFW with two or more images as test.

    Source: Liu et al., "Deep learning face attributes in the wild" (ICCV 2015), Huang et al., "Labeled faces
    in the wild" (2007), the former read by torchvision. CelebA's faces are aligned by its
    five points; LFW has none, so that a fixed box is cut from its funneled images.

    `validation` is at least 2 identities of CelebA.
    """
    if validation < 2:
        raise ValueError(f"validation must be at least 2 identities; got {validation}")
    base = data_root(root)
    test = _lfw(base, size)  # first: it is small, and what it lacks is soon said
    return Splits("celeba-lfw", *_held_out(_celeba(base, size), validation, seed), test)


def _celeba(base: Path, size: Size) -> ImageSet:
    layout = f"{base}/celeba/img_align_celeba/000001.jpg and the .txt lists in {base}/celeba/"
    source = download("CelebA", base, layout, split="all", target_type="identity")
    place = base / "celeba"
    points = source.landmarks_align.reshape(-1, 5, 2).numpy().astype(np.float32)
    people, labels = source.identity[:, 0].unique(return_inverse=True)
    folder, listed = place / "img_align_celeba", place / "list_eval_partition.txt"
    images = aligned_images(folder, list(source.filename), points, size, listed)
    return ImageSet(images, labels, tuple(f"CelebA {number}" for number in people.tolist()))


def _lfw(base: Path, size: Size) -> ImageSet:
    place = base / "lfw-py" / "lfw_funneled"
    if not place.is_dir():
        raise FileNotFoundError(
            f"LFW is not there, and torchvision no longer downloads it: unpack lfw-funneled.tgz to {place}, "
            f"or name another data root by root=... or {DATA_VARIABLE}"
        )
    folders = class_folders(place, f"{place}/Aaron_Eckhart/Aaron_Eckhart_0001.jpg and so on")
    people = decode_classes(folders, size=size, shrink=middle_of_lfw, stream=True)
    several = torch.bincount(people.labels)[people.labels] > 1
    if not several.any():
        raise ValueError(f"{place} has no person with two images, so that nothing can be found in it")
    return people.compact(several)

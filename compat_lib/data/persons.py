"""Person re-identification: Market-1501, DukeMTMC-reID and MSMT17, with cameras, queries and distractors."""

from pathlib import Path

import numpy as np
import pandas as pd

from compat_lib.names import check_choice

from .decoding import Size, printable
from .images import DISTRACTOR, VAL_SHARE, ImageSet, Place, Splits, data_root, with_validation
from .lists import listed_set, read_list, refuse_line
from .trees import list_images, needed_folder

_JUNK, _BACKGROUND = -1, 0  # identities that Market-1501 writes for no person and for wrong detections
_MSMT17 = {"MSMT17_V1": ("train", "test"), "MSMT17_V2": ("mask_train_v2", "mask_test_v2")}


def market1501(
    root: Place, *, path: Place = None, size: Size = (256, 128), seed: int = 0, validation: float = VAL_SHARE
) -> Splits:
    """Return Market-1501: 751 identities for training, 750 others with queries and a gallery for the test.

    Source: Zheng et al., "Scalable Person Re-identification: A Benchmark" (ICCV 2015): 12,936 training
    images, 3,368 queries, a gallery of 15,913 without junk. Names begin with identity and camera, such as
    `0002_c1s1_000451_03.jpg`; junk (identity -1) is left out, distractors (0000) stay in the gallery.

    Images are streamed. Test holds the queries and then the gallery, as `extras["query"]` (bool) says;
    `extras["camera"]` (int64) is that of the name. Classes are the names' identities and, last, "distractor".
    """
    base = data_root(root) / "Market-1501-v15.09.15" if path is None else Path(path).expanduser()
    return _by_names("market1501", base, size, seed, validation)


def dukemtmc(
    root: Place, *, path: Place = None, size: Size = (256, 128), seed: int = 0, validation: float = VAL_SHARE
) -> Splits:
    """Return DukeMTMC-reID: 702 identities for training, 702 others with queries and a gallery for the test.

    Source: Ristani et al. (ECCV workshops 2016), Zheng et al. (ICCV 2017): 16,522 training images, 2,228
    queries, a gallery of 17,661 with 408 more identities that have no query. Its authors have withdrawn the
    set. The tree is `<root>/DukeMTMC-reID`, names such as `0001_c2_f0046302.jpg`; the rest is as in
    `market1501`.
    """
    base = data_root(root) / "DukeMTMC-reID" if path is None else Path(path).expanduser()
    return _by_names("dukemtmc", base, size, seed, validation)


def msmt17(
    root: Place, *, path: Place = None, size: Size = (256, 128), seed: int = 0, identities: str = "train"
) -> Splits:
    """Return MSMT17: 1,041 identities for training, 3,060 others with queries and a gallery, 15 cameras.

    Source: Wei et al., "Person Transfer GAN to Bridge Domain Gap" (CVPR 2018). Training, validation, queries
    and gallery are its lists (30,248 + 2,373 and 11,659 + 82,161 images); validation are other images of the
    training identities, and nothing is held out by seed.

    The camera is the third field of a file's name. Test identities are counted from 0 again and named
    "test-0000"; the rest is as in `market1501`.

    Args:
        identities: "train"; "all" trains on queries and gallery too, 124,068 images of 4,101 identities, as
            Dual-Tuning's old models for other sets do: the test then asks for what was learnt.
    """
    check_choice("identities", identities, ("train", "all"))
    places = [data_root(root) / name for name in _MSMT17] if path is None else [Path(path).expanduser()]
    known = [(place, dirs) for place in places for dirs in _MSMT17.values() if (place / dirs[0]).is_dir()]
    if not known:
        raise FileNotFoundError(
            f"{' or '.join(map(printable, places))} is not there with a folder train (or mask_train_v2); "
            "unpack MSMT17 there, or name its place by path"
        )
    base, (train_folder, test_folder) = known[0]
    train, val = (_listed(base, name, train_folder, "") for name in ("list_train.txt", "list_val.txt"))
    asked = ("list_query.txt", "list_gallery.txt")
    query, gallery = (_listed(base, name, test_folder, "test-") for name in asked)
    test = _test_part(base, query, gallery, size)
    if identities == "all":
        train = pd.concat([train, query, gallery], ignore_index=True)
    train, val = (listed_set(base, rows, size=size) for rows in (train, val))
    return Splits("msmt17", train, val, test)


def _by_names(name: str, base: Path, size: Size, seed: int, validation: float) -> Splits:
    """A set in three folders whose file names say identity and camera."""
    folders = ("bounding_box_train", "query", "bounding_box_test")
    train, query, gallery = (_named(base, folder) for folder in folders)
    test = _test_part(base, query, gallery, size)
    return with_validation(name, listed_set(base, train, size=size), test, seed=seed, share=validation)


def _named(base: Path, folder: str) -> pd.DataFrame:
    """file, class (the identity's name) and camera of the images of a folder, without junk."""
    place = needed_folder(base, folder, expected="bounding_box_train, query and bounding_box_test")
    files = pd.Series([entry.name for entry in list_images(place)], dtype=object)
    frame = files.str.extract(r"^(?P<class>-1|\d+)_c(?P<camera>\d+)")
    frame["file"] = f"{folder}/" + files
    if (odd := frame["class"].isna()).any():
        raise ValueError(
            f"{printable(place / files[odd.idxmax()])} does not begin with an identity and a camera, such as "
            "0002_c1s1; rename or remove the file"
        )
    person = frame["class"].astype(int)
    frame["class"] = frame["class"].str.zfill(4)  # one name a person, however it is written
    frame["camera"] = frame.camera.astype(int)
    if folder == "bounding_box_test":
        frame.loc[person == _BACKGROUND, "class"] = DISTRACTOR
    frame = frame[person != _JUNK].reset_index(drop=True)
    if frame.empty:
        raise ValueError(f"{printable(place)} has no images; unpack the data set anew")
    return frame


def _listed(base: Path, name: str, folder: str, prefix: str) -> pd.DataFrame:
    """The same of a list of MSMT17."""
    frame = read_list(base / name, {"file": str, "class": np.int64})
    camera = frame.file.str.extract(r"^(?:.*/)?[^_/]+_[^_/]+_(\d+)_[^/]*$")[0]
    right = "whose third field is no camera, as 01 is in 0000_000_01_0303morning_0015_0.jpg"
    refuse_line(base / name, camera.isna(), lambda row: f"names {frame.file[row]}, {right}")
    frame["camera"], frame["file"] = camera.astype(int), folder + "/" + frame.file
    frame["class"] = prefix + frame["class"].astype(str).str.zfill(4)
    return frame


def _test_part(base: Path, query: pd.DataFrame, gallery: pd.DataFrame, size: Size) -> ImageSet:
    missing = query[~query["class"].isin(set(gallery["class"]) - {DISTRACTOR})]
    if len(missing):
        row = missing.iloc[0]
        raise ValueError(
            f"no image of the gallery has the identity {row['class']} of the query {printable(row.file)}; "
            "take queries and gallery of one release"
        )
    both = pd.concat([query, gallery], ignore_index=True)
    # Their names are sorted: "distractor" comes after all numbers.
    return listed_set(base, both.assign(query=both.index < len(query)), size=size)

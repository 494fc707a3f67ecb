"""IJB-B and IJB-C as InsightFace's evaluation reads them: faces in templates, and lists of comparisons."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compat_lib.names import check_choice

from .alignment import aligned_images
from .decoding import Size, printable
from .images import ImageSet
from .lists import ANEW, read_list, refuse_line

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}  # as the files of each set call them
_POINTS = ("left eye", "right eye", "nose", "left mouth", "right mouth")


def ijb(path: Path, part: str = "ijbc", *, size: Size = 112) -> tuple[ImageSet, dict[str, Tensor]]:
    """Return the images of IJB-B or IJB-C, aligned to 112 x 112 when they are read, and the protocol's lists.

    Source: Maze et al., "IARPA Janus Benchmark - C" (ICB 2018), Whitelam et al., "IARPA Janus Benchmark-B"
    (CVPRW 2017), in the layout of InsightFace's evaluation, see docs/data_sets.md.

    Deviation: MixBCT's published evaluation reads pixels as (x - 127.5) / 128, where its training divides by
    127.5; here networks are tested as they are trained.

    Returns:
        images with the extras "template" and "media" (int64) and "detector" (float32, the score), and the
        lists "pairs" (int64 [P, 3]: template of the gallery, template of the probe, 1 for one person else 0),
        "gallery1", "gallery2" and "probes" (int64 [n, 2]: template, subject). A class is a subject; where the
        1:N lists do not tell the subject of a template, the template.
    """
    check_choice("the part of IJB", part, GALLERIES)
    meta, source = path / "meta", path / "meta" / f"{part}_face_tid_mid.txt"
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no folder {printable(path)}: put meta/{source.name}, the other lists and loose_crop/ "
            "there, or name their folder"
        )
    faces = read_list(source, {"image": str, "template": np.int64, "medium": np.int64})
    scores = meta / f"{part}_name_5pts_score.txt"
    columns = dict.fromkeys((f"{axis} of {name}" for name in _POINTS for axis in "xy"), np.float32)
    points = read_list(scores, {"image": str} | columns | {"score": np.float32})
    if not faces["image"].equals(points["image"]):
        files = f"{printable(source)} and {scores.name}"
        raise ValueError(f"{files} do not have the same images in one order; {ANEW}")
    detector = points["score"].to_numpy(copy=True)
    refuse_line(scores, detector < 0, lambda row: f"has the score {detector[row]}")
    where = points[list(columns)].to_numpy().reshape(-1, len(_POINTS), 2)
    images = aligned_images(path / "loose_crop", faces["image"].tolist(), where, size, scores)
    template = faces["template"].to_numpy(copy=True)
    kinds = dict.fromkeys(("template", "second template", "same person"), np.int64)
    pairs = read_list(meta / f"{part}_template_pair_label.txt", kinds)
    searches = _searches(meta, part)
    labels, classes = _classes(template, searches, meta)
    lists = {"pairs": pairs, **searches}
    extras = {
        "template": torch.from_numpy(template),
        "media": torch.from_numpy(faces["medium"].to_numpy(copy=True)),
        "detector": torch.from_numpy(detector),
    }
    lists = {name: torch.from_numpy(rows.to_numpy(copy=True)) for name, rows in lists.items()}
    return ImageSet(images, labels, classes, extras), lists


def _searches(meta: Path, part: str) -> dict[str, pd.DataFrame]:
    """Templates and subjects of both galleries and of the probes; the files have a line an image."""
    names = [f"{part}_1N_gallery_{letter}.csv" for letter in GALLERIES[part]] + [f"{part}_1N_probe_mixed.csv"]
    paths = dict(zip(("gallery1", "gallery2", "probes"), (meta / name for name in names), strict=True))
    if not any(path.is_file() for path in paths.values()):
        return {}
    columns = {"template": np.int64, "subject": np.int64}
    lists = {name: read_list(path, columns, header=True) for name, path in paths.items()}
    return {name: rows.drop_duplicates().sort_values("template") for name, rows in lists.items()}


def _classes(
    template: np.ndarray, searches: dict[str, pd.DataFrame], meta: Path
) -> tuple[Tensor, tuple[str, ...]]:
    subject = np.full(len(template), np.nan)  # exact: ids are small numbers
    if searches:
        told = pd.concat(searches.values()).drop_duplicates().set_index("template")["subject"]
        if not told.index.is_unique:
            twice = told.index[told.index.duplicated()][0]
            raise ValueError(f"the lists 1N in {printable(meta)} give template {twice} two subjects; {ANEW}")
        subject = pd.Series(template).map(told).to_numpy(np.float64)
    unknown = np.isnan(subject)
    named = np.where(unknown, template, np.nan_to_num(subject)).astype(np.int64)
    kinds, labels = np.unique(np.stack([unknown, named], 1), axis=0, return_inverse=True)
    words = ("subject", "template")
    names = tuple(f"{words[kind]} {number}" for kind, number in kinds.tolist())
    return torch.from_numpy(labels.reshape(-1)), names

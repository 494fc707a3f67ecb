"""IJB-B and IJB-C as InsightFace's evaluation reads them: faces in templates, and lists of comparisons."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .alignment import aligned_images
from .decoding import Size, printable
from .images import ImageSet
from .lists import ANEW, read_list, refuse_line

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}  # as the files of each set call them
_POINTS = ("left eye", "right eye", "nose", "left mouth", "right mouth")


def ijb(path: Path, part: str = "ijbc", *, size: Size = 112) -> tuple[ImageSet, dict[str, Tensor]]:
    """Return the images of IJB-B or IJB-C, aligned to 112 x 112 when they are read, and the protocol's lists.

    Source: Maze et al., "IARPA Janus Benchmark - C" (ICB 2018), Whitelam et al., "IARPA Janus Benchmark-B"
    (CVPRW 2017), in the layout of InsightFace's evaluation: `loose_crop/<name>.jpg`, and in `meta/`

    - `ijbc_face_tid_mid.txt`: name, template, medium;
    - `ijbc_name_5pts_score.txt`: name, ten coordinates, the detector's score;
    - `ijbc_template_pair_label.txt`: template, template, 1 for one person;
    - `ijbc_1N_gallery_G1.csv`, `ijbc_1N_gallery_G2.csv` (IJB-B: S1, S2), `ijbc_1N_probe_mixed.csv`: template,
      subject, and more. Without any of these three there is no 1:N search.

    Deviation: MixBCT's published evaluation reads pixels as (x - 127.5) / 128, where its training divides by
    127.5; here networks are tested as they are trained.

    Returns:
        images with the extras "template" and "media" (int64) and "detector" (float32, the score), and the
        lists "pairs" (int64 [P, 3]: template of the gallery, template of the probe, 1 for one person else 0),
        "gallery1", "gallery2" and "probes" (int64 [n, 2]: template, subject). A class is a subject; where the
        1:N lists do not tell the subject of a template, the template.
    """
    if part not in GALLERIES:
        raise ValueError(f"unknown part {part!r} of IJB; choose one of {', '.join(GALLERIES)}")
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
    _same_images(faces["image"], points["image"], source, scores)
    detector = points["score"].to_numpy(copy=True)
    refuse_line(scores, detector < 0, lambda row: f"has the score {detector[row]}")
    where = points[list(columns)].to_numpy().reshape(-1, len(_POINTS), 2)
    images = aligned_images(path / "loose_crop", faces["image"].tolist(), where, size, scores)
    template = faces["template"].to_numpy(copy=True)
    pairs = _pairs(meta / f"{part}_template_pair_label.txt", template)
    lists = {"pairs": pairs, **_searches(meta, part, template)}
    labels, classes = _classes(template, lists)
    extras = {
        "template": torch.from_numpy(template),
        "media": torch.from_numpy(faces["medium"].to_numpy(copy=True)),
        "detector": torch.from_numpy(detector),
    }
    return ImageSet(images, labels, classes, extras), lists


def _same_images(first: pd.Series, second: pd.Series, one: Path, other: Path) -> None:
    if len(first) != len(second):
        counts = f"{printable(one)} has {len(first)} images and {printable(other)} has {len(second)}"
        raise ValueError(f"{counts}; {ANEW}")
    told, but = f"and of {printable(other)}", "but both list the same images in one order"
    refuse_line(one, first != second, lambda row: f"is {first[row]} {told} {second[row]}, {but}")


def _pairs(path: Path, known: np.ndarray) -> Tensor:
    columns = ("template", "second template", "same person")
    pairs = read_list(path, dict.fromkeys(columns, np.int64)).to_numpy(copy=True)
    odd = (pairs[:, 2] != 0) & (pairs[:, 2] != 1)
    refuse_line(path, odd, lambda row: f"ends in {pairs[row, 2]}, not in 0 or 1")
    _refuse_unknown(pairs[:, :2], known, path)
    return torch.from_numpy(pairs)


def _refuse_unknown(templates: np.ndarray, known: np.ndarray, path: Path, *, header: bool = False) -> None:
    absent, told = ~np.isin(templates, known), "names template {}, of which there is no image"
    first = templates[np.arange(len(templates)), absent.argmax(1)]
    refuse_line(path, absent.any(1), lambda row: told.format(first[row]), header=header)


def _searches(meta: Path, part: str, known: np.ndarray) -> dict[str, Tensor]:
    names = [f"{part}_1N_gallery_{letter}.csv" for letter in GALLERIES[part]] + [f"{part}_1N_probe_mixed.csv"]
    paths = dict(zip(("gallery1", "gallery2", "probes"), (meta / name for name in names), strict=True))
    if not any(path.is_file() for path in paths.values()):
        return {}
    found = {}
    for name, path in paths.items():
        frame = read_list(path, {"template": np.int64, "subject": np.int64}, header=True)
        _refuse_unknown(frame[["template"]].to_numpy(), known, path, header=True)
        unique = frame.drop_duplicates()  # the file has a line an image; the index keeps its number
        known_subjects = pd.concat([*found.values(), unique]).drop_duplicates()
        _refuse_second(known_subjects, "template", "subject", path)
        if name != "probes":
            _refuse_second(unique, "subject", "template", path)
        found[name] = unique
    shared = found["gallery2"]["subject"].isin(found["gallery1"]["subject"])
    if shared.any():
        row = shared.idxmax()
        raise ValueError(
            f"line {row + 2} of {printable(paths['gallery2'])} has subject "
            f"{found['gallery2']['subject'][row]}, as has {paths['gallery1'].name}, but no subject is in "
            f"both galleries; {ANEW}"
        )
    ordered = {name: frame.sort_values("template").to_numpy(copy=True) for name, frame in found.items()}
    return {name: torch.from_numpy(rows) for name, rows in ordered.items()}


def _refuse_second(frame: pd.DataFrame, key: str, value: str, path: Path) -> None:
    again = frame[frame[key].duplicated()]
    if len(again):
        raise ValueError(
            f"line {again.index[0] + 2} of {printable(path)} gives {key} {again[key].iloc[0]} a second "
            f"{value}, {again[value].iloc[0]}; each has one there: {ANEW}"
        )


def _classes(template: np.ndarray, lists: dict[str, Tensor]) -> tuple[Tensor, tuple[str, ...]]:
    told = [row for name in lists if name != "pairs" for row in lists[name].tolist()]
    subject = pd.Series(template).map(dict(told)).to_numpy(np.float64)  # exact: ids are small numbers
    unknown = np.isnan(subject)
    named = np.where(unknown, template, np.nan_to_num(subject)).astype(np.int64)
    kinds, labels = np.unique(np.stack([unknown, named], 1), axis=0, return_inverse=True)
    words = ("subject", "template")
    names = tuple(f"{words[kind]} {number}" for kind, number in kinds.tolist())
    return torch.from_numpy(labels.reshape(-1)), names

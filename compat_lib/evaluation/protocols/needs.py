"""What each protocol must be given: refused, where it is absent, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from compat_lib.evaluation.protocols.templates import Templates, measure_lists

Lists = Mapping[str, Tensor]
JUDGED = ("easy", "hard", "junk")  # lists of Revisited Oxford and Paris
NAMED = 5  # classes that a line of the log names
_log = logging.getLogger(__name__)


class Images(Protocol):
    """What a protocol reads of the test images: labels int64 [N], names of classes, extras [N] by name."""

    labels: Tensor
    classes: tuple[str, ...]
    extras: Mapping[str, Tensor]


_NEEDS = {  # protocol -> extras and lists without which nothing can be measured, and who has them
    "ijb": (("template", "media"), ("pairs",), "ms1mv3 has this protocol, tested on IJB-B or IJB-C"),
    "reid": (("query",), (), "market1501, msmt17, dukemtmc and a folder with query/ have this protocol"),
    "landmarks": (("query",), (), "a folder with query/ has this protocol"),
}


def refuse_protocol(protocol: str, data_set: str, images: Images, lists: Lists) -> None:
    """Refuse, before anything is trained, a protocol that these test images cannot be measured by.

    ValueError: extras or lists are missing, lists name what is not there, or no query has a right item.
    """
    extras, needed, who = _NEEDS.get(protocol, ((), (), ""))
    missing = [f"{name!r} of each test image" for name in extras if name not in images.extras]
    missing += [f"the list {name!r}" for name in needed if name not in lists]
    if missing:
        raise ValueError(
            f"protocol {protocol!r} needs {' and '.join(missing)}, which the data set {data_set!r} does not "
            f"have: {who}; every data set has pairs and leave-one-out"
        )
    if protocol == "ijb":
        ids = images.extras["template"].unique().numpy()
        alike = Templates(ids, np.ones((len(ids), 1)))
        try:
            measure_lists(alike, alike, lists)
        except ValueError as error:
            raise ValueError(f"the lists of {data_set!r} do not fit: {error}") from None
    if protocol in ("reid", "landmarks"):
        asked = query_rows(images)
        camera = cameras(images) if protocol == "reid" else asked.long()
        views = images.labels * (int(camera.max()) + 1) + camera  # an identity as one camera sees it
        seen, where = np.unique(views[~asked], return_index=True)
        others = torch.bincount(images.labels[~asked][where], minlength=int(images.labels.max()) + 1)
        findable = (others[images.labels] - torch.isin(views, torch.from_numpy(seen)).long())[asked] > 0
        listed = [name for name in (*JUDGED, "relevant") if protocol == "landmarks" and name in lists]
        for name in listed:
            judged(lists, name, images)
        if not asked.any() or asked.all() or not (listed or findable.any()):
            raise ValueError(
                f"the test part of {data_set!r} has {int(asked.sum())} queries and {int((~asked).sum())} "
                "gallery images, and no query has a right item among them (another camera's, where cameras "
                "are known): check identities, cameras and which images are queries"
            )
        if not listed and not findable.all():
            _log.warning(
                "%s: %d of the %d queries have no right item in the gallery (another camera's, where cameras "
                "are known) and %s; such classes: %s",
                *(data_set, int((~findable).sum()), len(findable)),
                "are left out" if protocol == "reid" else "count 0",
                ", ".join(images.classes[one] for one in images.labels[asked][~findable].unique()[:NAMED]),
            )


def query_rows(images: Images) -> Tensor:
    """Return bool [N], the test images that are queries; the rest is the gallery."""
    return images.extras["query"].bool()


def judged(lists: Lists, name: str, images: Images) -> list[np.ndarray]:
    """Return each query's gallery rows by a list, int64 [n, 2] rows (query, gallery image) of the test."""
    asked, rows = query_rows(images), lists[name].long()
    known = ((rows >= 0) & (rows < len(asked))).all(1)
    wrong = ~known | ~asked[rows[:, 0].where(known, 0)] | asked[rows[:, 1].where(known, 0)]
    if wrong.any():
        raise ValueError(
            f"the list {name!r} pairs rows {rows[wrong][0].tolist()}, which are no query and a gallery "
            "image; give (query, gallery image), both as rows of all test images"
        )
    place = torch.where(asked, asked.cumsum(0), (~asked).cumsum(0)) - 1  # among the queries, or the gallery
    queries, items = place[rows].numpy().reshape(-1, 2).T
    order = np.argsort(queries, kind="stable")
    ends = np.cumsum(np.bincount(queries, minlength=int(asked.sum())))
    return np.split(items[order], ends[:-1])


def cameras(images: Images) -> Tensor:
    """Return int64 [N]; without cameras the queries have one and the gallery another: nothing is left out."""
    return images.extras.get("camera", images.extras["query"].long())

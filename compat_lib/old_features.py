"""The old side from a file of features: of the old model nothing is left, or nothing is to be trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compat_lib.config import ExperimentConfig, project_path
from compat_lib.data.decoding import printable
from compat_lib.data.images import ImageSet, Splits


def read_old_features(config: ExperimentConfig, data: Splits) -> dict[str, Tensor]:
    """The old model's features of all images of a data set, joined by the images' names.

    Validation images that were held out of train/ keep their rows, since they keep their names.

    Args:
        config: names the file (or the two, see `old_test_features`) and the width.
        data: its images have names, as those of class folders do.

    Returns:
        "train", "val" and "test": float32 ``[N, old_width]`` each, in the order of their images.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged, has another width, or no row of an image.
    """
    # Here, since a run without such a file has no need of pandas and pyarrow's readers.
    from compat_lib.deploy.feature_files import read_features

    if nameless := [name for name, part in data.parts.items() if part.names is None]:
        raise ValueError(
            f"old_features are joined to images by the names of their files, which data set {config.dataset} "
            f"does not have ({', '.join(nameless)}); use dataset: folder"
        )
    files = [file for file in (config.old_features, config.old_test_features) if file is not None]
    tables = [read_features(project_path(file), columns=config.old_features_columns) for file in files]
    for table in tables:
        width = table.features.shape[1]
        if width != config.old_width:
            raise ValueError(
                f"{table.path} holds features of width {width}, but old_width is {config.old_width}; set "
                f"old_width: {width}, and new_width too unless another one is meant"
            )
    groups = [("train", "val"), ("test",)] if len(tables) == 2 else [("train", "val", "test")]
    found: dict[str, Tensor] = {}
    for table, parts in zip(tables, groups, strict=True):
        found |= _joined(table, {part: data.parts[part] for part in parts})
    return found


def _joined(table, parts: dict[str, ImageSet]) -> dict[str, Tensor]:
    """Features of the parts from one table, part by part."""
    from compat_lib.deploy.row_order import align

    listed = {part: [images.names[row] for row in range(len(images))] for part, images in parts.items()}
    # Once each: validation images may train as well, see `with_validation`.
    files = list(dict.fromkeys(name for names in listed.values() for name in names))
    place = {name: row for row, name in enumerate(files)}
    features = align(table, [printable(name) for name in files]).features
    return {
        part: torch.from_numpy(features[np.array([place[name] for name in names])])
        for part, names in listed.items()
    }

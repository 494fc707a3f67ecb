"""A user's files of old features: npz, npy, CSV and parquet, read without running anything that is in them.

    table = read_features("old.csv")
    features, found = table.of_images(files)             # rows in the order of the images, and the proof
    old = OldSystem.from_arrays(features, found.labels)

Beside its features a file names its images (ids) and perhaps their classes (labels).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from compat_lib.old_arrays import names, numbers
from compat_lib.old_columns import USUAL, read_csv, read_parquet
from compat_lib.old_files import DAMAGED, read_archive
from compat_lib.old_images import Aligned, align

ROLES = ("features", "ids", "labels")
FORMATS = (".npz", ".npy", ".csv", ".tsv", ".parquet")


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureTable:
    """What a file of features holds, in the file's order.

    Args:
        path: of the file.
        features: float32 [N, d], finite.
        ids: text [N], names of the images, or None.
        labels: text [N], or None.
        ignored: columns or arrays that were not read.
    """

    path: Path
    features: np.ndarray
    ids: np.ndarray | None
    labels: np.ndarray | None
    ignored: tuple[str, ...] = ()

    def of_images(self, files: Sequence[str], *, trust_order: bool = False) -> tuple[np.ndarray, Aligned]:
        """Features of the given images, float32 [files, d], and how each row was found.

        Args:
            files: paths of images with their class folder, in the order of the data set.
            trust_order: take row i for image i where the file has no ids.
        Raises:
            ValueError: "old.csv: 2 of 100 images have no feature, ..." and whatever else `align` refuses.
        """
        try:
            found = align(files, len(self.features), self.ids, self.labels, trust_order=trust_order)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        return self.features[found.rows], found

    def __str__(self) -> str:
        rows, width = self.features.shape
        parts = [f"{rows} rows of width {width}", "ids" if self.ids is not None else "no ids"]
        parts += ["labels" if self.labels is not None else "no labels"]
        parts += [f"not read: {', '.join(self.ignored)}"] if self.ignored else []
        return "; ".join(parts)


def read_features(
    path: str | Path,
    *,
    ids: str | Path | None = None,
    labels: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> FeatureTable:
    """Features of images from a file, with the images' names and labels where they are given.

    Args:
        path: .npz with arrays "features" [N, d], "ids" [N] and "labels" [N]; .npy with features alone; .csv,
            .tsv or .parquet with one row an image. Parquet needs the package pyarrow.
        ids, labels: files that hold them where `path` does not: .npy, or text with one name a line.
        columns: "ids", "labels" and "features" -> what they are called in the file. For the features of a
            table that is what its numbered columns begin with, or a column of lists (parquet). Otherwise the
            usual names are looked for (ids: ids, id, path, file, image; labels: labels, label, class,
            identity).
    Raises:
        FileNotFoundError: "There is no file old.csv. ..."
        ModuleNotFoundError: "old.parquet: reading parquet needs the package pyarrow, ..."
        ValueError: a sentence with the file, and the line or row and the column, for everything that is not a
            table of numbers: missing or doubled columns, lines of unequal length, text, gaps, values that are
            not finite, pickled objects.
    """
    path, columns = Path(path), dict(columns or {})
    if unknown := sorted(set(columns) - set(ROLES)):
        raise ValueError(f"columns may name {', '.join(ROLES)}, not {unknown[0]!r}.")
    readers = {".npz": _npz, ".npy": _npy, ".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: features are read from {', '.join(FORMATS)}. Save them in one of these.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Features are read from {', '.join(FORMATS)}.")
    found, ignored = readers[path.suffix.lower()](path, columns)
    found |= {
        role: _keys(Path(file)) for role, file in (("ids", ids), ("labels", labels)) if file is not None
    }
    try:
        features = numbers("features", found["features"], 2).numpy()
        keys = {role: None if found.get(role) is None else names(role, found[role]) for role in USUAL}
        for role, values in keys.items():
            if values is not None and len(values) != len(features):
                raise ValueError(
                    f"{role} have {len(values)} rows but features {len(features)}. Give one for each row."
                )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return FeatureTable(path, features, keys["ids"], keys["labels"], tuple(ignored))


def _npz(path: Path, columns: dict[str, str]) -> tuple[dict, list[str]]:
    wanted = {role: columns.get(role, role) for role in ROLES}
    arrays, there = read_archive(path, tuple(wanted.values()))
    for role, name in wanted.items():
        if name not in arrays and (role == "features" or role in columns):
            raise ValueError(
                f"{path} has no array {name!r}; its arrays are {', '.join(there) or 'none'}. Save it under "
                f"that name, or say what it is called, with columns={{{role!r}: ...}}."
            )
    ignored = [name for name in there if name not in wanted.values()]
    return {role: arrays.get(name) for role, name in wanted.items()}, ignored


def _npy(path: Path, columns: dict[str, str]) -> tuple[dict, list[str]]:
    try:
        array = np.load(path, allow_pickle=False)
    except PermissionError:
        raise
    except DAMAGED as error:
        raise ValueError(
            f"{path} is not a plain array: it is damaged or larger than the memory, or it holds Python "
            "objects, which are not read because they can run code. Write it with numpy.save(path, features)."
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.names:
        raise ValueError(f"{path} is not one plain array. Write it with numpy.save(path, features).")
    return {"features": array}, []


def _keys(path: Path) -> np.ndarray:
    """Ids or labels from a file of their own."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Give .npy, or text with one name a line.")
    if path.suffix.lower() == ".npy":
        return _npy(path, {})[0]["features"]
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8. Save it as such, one name a line.") from error
    if "" in lines:
        raise ValueError(f"{path}, line {lines.index('') + 1} is empty. Write one name a line.")
    return np.array(lines, dtype=str)

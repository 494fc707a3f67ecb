"""What is left of the deployed (old) system, and what methods may ask of it.

The least that a method needs is one feature vector of the old model for each image of the new training set.
Prototypes and credible masks are derived from these. The old classifier and the old model are optional, so
the package also serves those who have lost the old weights.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from compat_lib.class_means import ROWS_AT_ONCE, class_means, credible_rows
from compat_lib.files import file_identity, load_tensors, save_tensors, write_rows
from compat_lib.names import check_choice, check_number, one_each
from compat_lib.user_arrays import count_classes, mapped_numbers, numbers, refuse_outside

TENSORS = "old_system.safetensors"
MAPPED = "features.npy"  # beside it, where the features stay on disk
VERSION = 3
ARRAYS = ("features", "labels", "prototypes", "classifier_weight", "classifier_bias", "class_map")
SCALARS = ("classifier_scale", "num_classes")


@dataclasses.dataclass(frozen=True, eq=False)
class OldSystem:
    """The frozen old system, made with `from_arrays` (which says what each field is) or `load`."""

    features: Tensor | None  # float32 [N, d]; memory-mapped ones may be float16, see `rows_of`
    labels: Tensor | None  # int64 [N], 0..C-1
    num_classes: int  # C, of the new training set
    width: int  # d
    given_prototypes: Tensor | None = None  # float32 [C, d]; a row of zeros: the class has none
    classifier_weight: Tensor | None = None  # float32 [C_old, d]
    classifier_bias: Tensor | None = None  # float32 [C_old]
    classifier_scale: float | None = None  # None for a linear classifier
    class_map: Tensor | None = None  # int64 [C]
    model: nn.Module | None = None  # in evaluation mode, without gradients
    oracle_features: Tensor | None = None  # float32 [N, d_n], no part of the old system, see `with_oracle`
    mapped: Path | None = None  # the file of memory-mapped features
    # of a chain, float32 [d_j, d]: what carries these features to galleries before them, the nearest first
    maps: tuple[Tensor, ...] = ()  # given by dataclasses.replace, and no part of what is saved

    @classmethod
    def from_arrays(
        cls,
        features=None,
        labels=None,
        *,
        prototypes=None,
        classifier_weight=None,
        classifier_bias=None,
        classifier_scale: float | None = None,
        class_map=None,
        num_classes: int | None = None,
        model: nn.Module | None = None,
    ) -> OldSystem:
        """An old system made from your own arrays, checked; of an npz archive, ``**numpy.load(path)``.

        Args:
            features: [N, d] real numbers (NumPy, torch, pandas or lists), old features of the new training
                set in its order, not normalised. Float32 arrays are not copied; leave them unchanged. The
                `Path` of an .npy file of float16 or float32 leaves them on disk: millions of rows are read
                block by block, or as far as a batch has them.
            labels: [N] integers, new labels of these rows, 0..C-1.
            prototypes: [C, d], class means of old features by new label, if you have only these.
            classifier_weight: [C_old, d], the old classifier's rows.
            classifier_bias: [C_old], for a linear old classifier that has one.
            classifier_scale: scale of a cosine classifier (ArcFace, CosFace); None for a linear one.
            class_map: [C] integers, new label -> old label, -1 where the old model never saw the class.
            num_classes: C; by default taken from class_map, prototypes or the largest label.
            model: the old network; it is set to evaluation mode and its gradients are switched off.

        >>> old = OldSystem.from_arrays([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], [0, 0, 1])
        >>> old.prototypes().tolist(), sorted(old.has)
        ([[2.0, 0.0], [0.0, 2.0]], ['features', 'prototypes'])
        """
        mapped = features if isinstance(features, Path) else None
        features = numbers("features", features, 2) if mapped is None else mapped_numbers(mapped)
        prototypes = numbers("prototypes", prototypes, 2)
        weight = numbers("classifier_weight", classifier_weight, 2)
        bias = numbers("classifier_bias", classifier_bias, 1)
        labels = numbers("labels", labels, 1, whole=True)
        class_map = numbers("class_map", class_map, 1, whole=True)
        tables = {"features": features, "prototypes": prototypes, "classifier_weight": weight}
        widths = {name: table.shape[1] for name, table in tables.items() if table is not None}
        if len(set(widths.values())) != 1:
            raise ValueError(
                "give at least one of features with labels, prototypes and classifier_weight, of one old "
                f"model and so of one width; the widths here: {widths or 'none'}"
            )
        num_classes = count_classes(num_classes, labels, class_map, prototypes)
        if features is not None and labels is None:
            raise ValueError(f"there are no labels for {len(features)} rows of features; give one for each")
        for name, array, count, of in (
            ("features", features, None if labels is None else len(labels), "labels"),
            ("prototypes", prototypes, num_classes, "new classes"),
            ("class_map", class_map, num_classes, "new classes"),
            ("classifier_bias", bias, 0 if weight is None else len(weight), "rows of classifier_weight"),
        ):
            if array is not None:
                one_each(array, name, count, of)
        for name, array, low, high in (
            ("labels", labels, 0, num_classes - 1),  # new ones
            ("class_map", class_map, -1, math.inf if weight is None else len(weight) - 1),  # old ones
        ):
            if array is not None:
                refuse_outside(name, array, low, high)
        cosine = weight is not None and bias is None
        if classifier_scale is not None and not (cosine and 0 < classifier_scale < math.inf):
            raise ValueError(
                f"classifier_scale must be above 0, not {classifier_scale!r}, and belongs to a cosine "
                "classifier: pass it with classifier_weight and without classifier_bias"
            )
        if model is not None:
            model.eval().requires_grad_(False)
        scale = None if classifier_scale is None else float(classifier_scale)
        width = next(iter(widths.values()))
        given = (prototypes, weight, bias, scale, class_map, model)
        return cls(features, labels, num_classes, width, *given, mapped=mapped)

    @classmethod
    def load(cls, folder: str | Path, model: nn.Module | None = None) -> OldSystem:
        """The old system that `save` wrote to a folder, compared with its digest and checked again.

        `model` is the old network: networks are not saved here, because their files can run code. A file that
        is missing, damaged, of another save or another version is a ValueError.
        """
        path, mapped = Path(folder) / TENSORS, Path(folder) / MAPPED
        try:
            tensors, metadata = load_tensors(path)
            known = json.loads(metadata.get("old_system", "{}"))
            if known.get("version") != VERSION:
                raise ValueError("it is of another version")
            if known["mapped"]:
                tensors["features"] = mapped
                if not mapped.is_file() or file_identity(mapped) != known["mapped"]:
                    raise ValueError(f"{MAPPED} is missing, damaged or of another save")
        except ValueError as error:
            raise ValueError(
                f"{path} holds no whole old system ({error}); save it again, or delete the folder of its run "
                "to train it anew"
            ) from error
        return cls.from_arrays(**tensors, **{name: known[name] for name in SCALARS}, model=model)

    def save(self, folder: str | Path) -> None:
        """Write everything but the network and the oracle's features to a folder, in one piece.

        Memory-mapped features are copied there block by block, unless that is where they are.
        """
        arrays = vars(self) | {"prototypes": self.given_prototypes}
        tensors = {name: arrays[name] for name in ARRAYS if arrays[name] is not None}
        mapped = None
        if self.mapped is not None:
            target, rows = Path(folder) / MAPPED, tensors.pop("features")
            if not (target.is_file() and target.samefile(self.mapped)):
                write_rows(target, len(rows), rows.split(ROWS_AT_ONCE))
            mapped = file_identity(target)
        known = {"version": VERSION, "mapped": mapped} | {name: arrays[name] for name in SCALARS}
        save_tensors(tensors, Path(folder) / TENSORS, {"old_system": json.dumps(known)})

    def with_oracle(self, features) -> OldSystem:
        """The same with features [N, d_n] of an oracle, a model that was trained without compatibility."""
        features = numbers("oracle_features", features, 2)
        count = 0 if self.features is None else len(self.features)
        one_each(features, "oracle features", count, "old ones")
        return dataclasses.replace(self, oracle_features=features)

    def with_outliers(self, share: float, generator: torch.Generator) -> OldSystem:
        """The same old system with wrong features in some rows: those of random images of other classes.

        What is derived from features (prototypes, credible rows) sees them; classifier and model do not. Of N
        rows round(share N), drawn without replacement by a CPU generator, are outliers.
        """
        features, labels = self._features("outliers"), self.labels.cpu()
        counts = torch.bincount(labels)
        if (counts > 0).sum() < 2:
            raise ValueError("outliers need features of two classes or more, to be taken from another class")
        rows = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
        sizes, starts = counts[labels[rows]], (counts.cumsum(0) - counts)[labels[rows]]
        draws = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        place = (draws * (len(labels) - sizes)).long()  # among the rows of all other classes, sorted by class
        place += torch.where(place >= starts, sizes, 0)
        wrong = features.to(torch.float32, copy=True)
        wrong[rows] = rows_of(features, labels.argsort(stable=True)[place]).to(wrong)
        return dataclasses.replace(self, features=wrong, mapped=None)

    @property
    def has(self) -> frozenset[str]:
        """What is there, of: features, prototypes, classifier, model, oracle."""
        found = {
            "features": self.features,
            "prototypes": self.features if self.given_prototypes is None else self.given_prototypes,
            "classifier": self.classifier_weight,
            "model": self.model,
            "oracle": self.oracle_features,
        }
        return frozenset(name for name, value in found.items() if value is not None)

    def prototypes(self, average: str = "raw") -> Tensor:
        """Mean old feature of each new class, float32 [C, d], not normalised; zeros for one without samples.

        Source: the pseudo old classifier of BCT (arXiv 2003.11942). Deviation from MixBCT's published script:
        rows stand at their label even when labels have gaps, and every class is divided by its own count.

        With the average "raw" features count as they are (published), with "unit" normalised, which keeps
        features of large norm from ruling their class. Prototypes that were given are "raw".
        """
        check_choice("average", average, ("raw", "unit"))
        if average == "raw" and self.given_prototypes is not None:
            return self.given_prototypes
        features = self._features(f"prototypes with average={average!r}")
        means = class_means(features, self.labels, self.num_classes, unit=average == "unit")
        return means.to(features.device)

    @property
    def present(self) -> Tensor:
        """Bool [C], the new classes that have a prototype."""
        if self.given_prototypes is not None:
            return self.given_prototypes.ne(0).any(dim=1)
        self._features("prototypes")
        return torch.bincount(self.labels, minlength=self.num_classes) > 0

    def credible(self, share: float = 0.9, columns: bool = True) -> Tensor:
        """Bool [N], the old features near the mean of their class, see `credible_rows`."""
        check_number("share", share, 0, 1)
        features = self._features("credible rows")
        mask = credible_rows(features, self.labels, self.num_classes, share, columns)
        return mask.to(features.device)

    def _features(self, what: str) -> Tensor:
        if self.features is None:
            raise ValueError(f"{what} are computed from features, which are not there; pass them")
        return self.features

    def __repr__(self) -> str:
        rows = "" if self.labels is None else f"{len(self.labels)} rows, "
        has = ", ".join(sorted(self.has))
        return f"OldSystem({rows}width {self.width}, {self.num_classes} classes, has {has})"


def refuse_unlike(old: OldSystem, model: nn.Module, labels: Tensor) -> None:
    """Refuse rows, labels int64 [N], that the old system labels otherwise, and to train its own network."""
    if old.features is not None and len(old.features) != len(labels):
        raise ValueError(
            f"the old system has features of {len(old.features)} rows, the training set has {len(labels)}: "
            "extract the old features on exactly this training set, in its order"
        )
    if old.features is not None and len(wrong := (old.labels.cpu() != labels.cpu()).nonzero()):
        row = int(wrong[0])
        raise ValueError(
            f"{len(wrong)} rows have another label in the old system than in the training set, the first row "
            f"{row} ({int(old.labels[row])} and {int(labels[row])}); number the classes once, for both"
        )
    frozen = set() if old.model is None else set(old.model.parameters())
    if not frozen.isdisjoint(model.parameters()):
        raise ValueError(
            "the new model has parameters of the old one, which stays as it is; give the old system a "
            "copy.deepcopy of that network, made before anything trains"
        )


def rows_of(features: Tensor, rows: Tensor) -> Tensor:
    """Float32 features of some rows (int64) on the device of `rows`; of mapped features no others are read.

    >>> rows_of(torch.eye(3, dtype=torch.float16), torch.tensor([2]))
    tensor([[0., 0., 1.]])
    """
    return features[rows.to(features.device)].to(rows.device, torch.float32)

"""What is left of the deployed (old) system, and what methods may ask of it.

The least that a method needs is one feature vector of the old model for each image of the new training set.
Prototypes and credible masks are derived from these. The old classifier and the old model are optional, so
the package also serves those who have lost the old weights.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compat_lib.old_arrays import check_classifier, check_rows, integers, numbers
from compat_lib.old_files import TENSORS, read_folder, read_npz, write_folder
from compat_lib.old_statistics import class_means, credible_rows

# how each thing can be had, for the sentence that a user reads when it is missing
_REMEDY = {
    "features": "pass features=[N, d] with labels=[N], one row for each image of the new training set",
    "prototypes": "pass features with labels (prototypes are their class means) or prototypes=[C, d]",
    "classifier": "pass classifier_weight=[C_old, d] with class_map=[C]",
    "model": "pass model=the old network",
    "oracle": "call with_oracle(features=[N, d_n]), features of a new model trained without compatibility",
}


@dataclasses.dataclass(frozen=True, eq=False)
class OldSystem:
    """The frozen old system; make one with `from_arrays`, `from_npz` or `load`.

    Args:
        features: float32 [N, d], old features of the new training set in its order, not normalised, or None.
        labels: int64 [N], new labels of these rows, 0..C-1, or None.
        num_classes: C, classes of the new training set.
        width: d, coordinates of an old feature.
        given_prototypes: float32 [C, d] or None; a row of zeros means that the class has none.
        classifier_weight: float32 [C_old, d] or None.
        classifier_bias: float32 [C_old] or None.
        classifier_scale: None for a linear classifier, the scale of a cosine classifier otherwise.
        class_map: int64 [C], new label -> old label or -1 where the old model never saw the class, or None.
        model: the old network in evaluation mode without gradients, or None.
        oracle_features: float32 [N, d_n], features of the same rows by an independently trained new model, or
            None. They are no part of the old system, but stand row by row beside its features.
    """

    features: Tensor | None
    labels: Tensor | None
    num_classes: int
    width: int
    given_prototypes: Tensor | None = None
    classifier_weight: Tensor | None = None
    classifier_bias: Tensor | None = None
    classifier_scale: float | None = None
    class_map: Tensor | None = None
    model: nn.Module | None = None
    oracle_features: Tensor | None = None
    _cache: dict = dataclasses.field(default_factory=dict, repr=False)

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
    ) -> "OldSystem":
        """An old system made from your own arrays, checked.

        Args:
            features: [N, d] real numbers (numpy or torch), old features of the new training set in its order,
                not normalised. Float32 arrays are not copied; leave them unchanged afterwards.
            labels: [N] integers, new labels of these rows, 0..C-1.
            prototypes: [C, d], class means of old features by new label, if you have only these.
            classifier_weight: [C_old, d], the old classifier's rows.
            classifier_bias: [C_old], for a linear old classifier that has one.
            classifier_scale: scale of a cosine classifier (ArcFace, CosFace); None for a linear one.
            class_map: [C] integers, new label -> old label, -1 where the old model never saw the class.
            num_classes: C; by default taken from class_map, prototypes or the largest label.
            model: the old network; it is set to evaluation mode and its gradients are switched off.
        Raises:
            ValueError: a sentence that names the field, what it holds, what is allowed and what to do, such
                as "features hold 2 values that are not finite, first in row 7. ...".
            TypeError: "labels must be whole numbers, not float32. ..."

        >>> old = OldSystem.from_arrays([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], [0, 0, 1])
        >>> old.prototypes().tolist(), sorted(old.has)
        ([[2.0, 0.0], [0.0, 2.0]], ['features', 'prototypes'])
        """
        features = numbers("features", features, 2)
        prototypes = numbers("prototypes", prototypes, 2)
        classifier_weight = numbers("classifier_weight", classifier_weight, 2)
        classifier_bias = numbers("classifier_bias", classifier_bias, 1)
        labels = integers("labels", labels)
        class_map = integers("class_map", class_map)

        tables = {"features": features, "prototypes": prototypes, "classifier_weight": classifier_weight}
        widths = {name: table.shape[1] for name, table in tables.items() if table is not None}
        if not widths:
            raise ValueError(
                "An old system needs at least one of features, prototypes and classifier_weight; none was "
                "given. Features with their labels serve most methods."
            )
        if len(set(widths.values())) > 1:
            shown = ", ".join(f"{name} have width {width}" for name, width in widths.items())
            raise ValueError(f"The old system's arrays disagree: {shown}. All must come from one old model.")

        if num_classes is None:
            if class_map is not None:
                num_classes = len(class_map)
            elif prototypes is not None:
                num_classes = len(prototypes)
            elif labels is not None and len(labels):
                num_classes = int(labels.max()) + 1
            else:
                raise ValueError(
                    "The number of new classes is not known. Pass num_classes, labels, prototypes or "
                    "class_map."
                )
        if not isinstance(num_classes, int | np.integer) or num_classes < 1:
            raise ValueError(f"num_classes must be a whole number of at least 1, not {num_classes!r}.")
        num_classes = int(num_classes)

        check_rows(features, labels, num_classes)
        if prototypes is not None and len(prototypes) != num_classes:
            raise ValueError(
                f"prototypes have {len(prototypes)} rows, but there are {num_classes} new classes. Give one "
                "row for each new class, zeros where there is none."
            )
        check_classifier(classifier_weight, classifier_bias, classifier_scale, class_map, num_classes)
        if model is not None:
            model.eval().requires_grad_(False)
        return cls(
            features=features,
            labels=labels,
            num_classes=num_classes,
            width=next(iter(widths.values())),
            given_prototypes=prototypes,
            classifier_weight=classifier_weight,
            classifier_bias=classifier_bias,
            classifier_scale=None if classifier_scale is None else float(classifier_scale),
            class_map=class_map,
            model=model,
        )

    @classmethod
    def from_npz(cls, path: str | Path, *, model: nn.Module | None = None) -> "OldSystem":
        """An old system from a numpy archive with the array names of `from_arrays`; never unpickles.

        Args:
            path: an .npz file written by numpy.savez.
            model: the old network, or None.
        Raises:
            FileNotFoundError: "There is no file old.npz. ..."
            ValueError: "old.npz: 'features' holds Python objects, ..." or what `from_arrays` refuses.
        """
        return cls._from_file(path, read_npz(path), model)

    @classmethod
    def load(cls, folder: str | Path, model: nn.Module | None = None) -> "OldSystem":
        """The old system that `save` wrote, checked again.

        Args:
            folder: a folder with old_system.json and old_system.safetensors.
            model: the old network; networks are not saved here, because their files can run code.
        Raises:
            FileNotFoundError: "There is no file runs/old_system/old_system.json. ..."
            ValueError: "...old_system.safetensors: features hold 2 values that are not finite, ..."
        """
        return cls._from_file(Path(folder) / TENSORS, read_folder(folder), model)

    @classmethod
    def _from_file(cls, path: str | Path, arrays: dict, model: nn.Module | None) -> "OldSystem":
        try:
            return cls.from_arrays(**arrays, model=model)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{path}: {error}") from error

    def save(self, folder: str | Path) -> None:
        """Writes the old system (without the network) to a folder, each file in one piece.

        Args:
            folder: made when it does not exist; an old system that is already there is replaced.
        """
        arrays = {
            "features": self.features,
            "labels": self.labels,
            "prototypes": self.given_prototypes,
            "classifier_weight": self.classifier_weight,
            "classifier_bias": self.classifier_bias,
            "class_map": self.class_map,
        }
        write_folder(folder, arrays, num_classes=self.num_classes, classifier_scale=self.classifier_scale)

    def with_oracle(self, features) -> "OldSystem":
        """The same old system beside an oracle: a new model that was trained without compatibility.

        Args:
            features: [N, d_n] real numbers, the oracle's features of the rows of `features`, in their order.
        Raises:
            ValueError: "There are 100 oracle features for 120 old ones. ..."

        >>> old = OldSystem.from_arrays([[1.0, 0.0], [0.0, 2.0]], [0, 1]).with_oracle([[1.0], [2.0]])
        >>> old.oracle_features.shape, "oracle" in old.has
        (torch.Size([2, 1]), True)
        """
        features = numbers("oracle_features", features, 2)
        if self.features is None or len(features) != len(self.features):
            count = 0 if self.features is None else len(self.features)
            raise ValueError(
                f"There are {len(features)} oracle features for {count} old ones. Extract both on exactly "
                "the new training set, in its order."
            )
        return dataclasses.replace(self, oracle_features=features)

    @property
    def has(self) -> frozenset[str]:
        """What is there, of: features, prototypes, classifier, model, oracle."""
        found = {
            "features": self.features is not None,
            "prototypes": self.features is not None or self.given_prototypes is not None,
            "classifier": self.classifier_weight is not None,
            "model": self.model is not None,
            "oracle": self.oracle_features is not None,
        }
        return frozenset(name for name, there in found.items() if there)

    def require(
        self, names: frozenset[str], method: str, others: Mapping[str, Iterable[frozenset[str]]] | None = None
    ) -> None:
        """Refuses when something that a method needs is missing.

        Args:
            names: what the method needs, of: features, prototypes, classifier, model, oracle.
            method: its name, for the message.
            others: name -> what each method needs, any one of several sets, for the message.
        Raises:
            ValueError: "The method l2 needs the old system's features, but only classifier is there. ..."
        """
        missing = sorted(names - self.has)
        if not missing:
            return
        remedies = "; ".join(f"for {name}, {_REMEDY[name]}" for name in missing)
        possible = sorted(
            name for name, needs in (others or {}).items() if any(one <= self.has for one in needs)
        )
        remaining = f" Methods that work with what is there: {', '.join(possible)}." if possible else ""
        raise ValueError(
            f"The method {method} needs the old system's {', '.join(missing)}, but only "
            f"{', '.join(sorted(self.has))} is there. To go on, {remedies}.{remaining}"
        )

    def prototypes(self, average: str = "raw") -> Tensor:
        """Mean old feature of each new class, not normalised.

        Source: the pseudo old classifier of BCT (arXiv 2003.11942). Deviation from MixBCT's published script:
        rows stand at their label even when labels have gaps, and every class is divided by its own count.

        Args:
            average: "raw" averages features as they are (published), "unit" averages them normalised, which
                keeps features of large norm from ruling their class. Prototypes that were given are "raw".
        Returns:
            float32 [C, d]; a row of zeros for a class without samples, see `present`. Computed once.
        Raises:
            ValueError: "average must be 'raw' or 'unit', not 'x'." or what is missing for it.
        """
        if average not in ("raw", "unit"):
            raise ValueError(f"average must be 'raw' or 'unit', not {average!r}.")
        if average == "raw" and self.given_prototypes is not None:
            return self.given_prototypes
        if self.features is None:
            what = "Prototypes" if self.given_prototypes is None else "Prototypes with average='unit'"
            remedy = "" if self.given_prototypes is None else ", or use average='raw'"
            raise ValueError(f"{what} are computed from features, which are not there. Pass them{remedy}.")
        if average not in self._cache:
            means = class_means(self.features, self.labels, self.num_classes, unit=average == "unit")
            self._cache[average] = means.to(self.features.device)
        return self._cache[average]

    @property
    def present(self) -> Tensor:
        """Bool [C], the new classes that have a prototype."""
        if self.given_prototypes is not None:
            return self.given_prototypes.ne(0).any(dim=1)
        if self.features is None:
            raise ValueError("Prototypes are computed from features, which are not there. Pass them.")
        return torch.bincount(self.labels, minlength=self.num_classes) > 0

    def credible(self, share: float = 0.9, columns: bool = True) -> Tensor:
        """Which old features lie near the mean of their class.

        Source: MixBCT (arXiv 2308.06948), published selection script: unit rows, then every column divided by
        its norm over the whole set, then in each class the ceil(share x n) rows nearest to the class mean.
        Deviations: rows are grouped by label wherever they stand, and the count allows for rounding.

        Args:
            share: T, fraction of each class that is kept, 0..1.
            columns: False leaves out the division of the columns.
        Returns:
            bool [N]; equal distances are kept in row order. Computed once.
        Raises:
            ValueError: "share must be a fraction between 0 and 1, not 90."

        >>> old = OldSystem.from_arrays([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], [0, 0, 0])
        >>> old.credible(share=0.5).tolist()                              # ceil(1.5) = 2 of three are kept
        [True, True, False]
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share must be a fraction between 0 and 1, not {share}.")
        if self.features is None:
            raise ValueError("Credible rows are chosen among features, which are not there. Pass them.")
        key = (share, bool(columns))
        if key not in self._cache:
            mask = credible_rows(self.features, self.labels, self.num_classes, share, columns)
            self._cache[key] = mask.to(self.features.device)
        return self._cache[key]

    def to(self, device: str | torch.device) -> "OldSystem":
        """The same old system with every tensor, and the network, on a device."""

        def move(value):
            return value.to(device) if isinstance(value, Tensor | nn.Module) else value

        fields = {one.name: move(getattr(self, one.name)) for one in dataclasses.fields(self)}
        fields["_cache"] = {key: move(value) for key, value in self._cache.items()}
        return OldSystem(**fields)

    def __repr__(self) -> str:
        rows = "" if self.labels is None else f"{len(self.labels)} rows, "
        has = ", ".join(sorted(self.has))
        return f"OldSystem({rows}width {self.width}, {self.num_classes} classes, has {has})"

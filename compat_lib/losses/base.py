"""What a compatibility method is.

It is given the old system once and the embeddings of every step, and answers with named scalar terms; the
training loop adds them with the method's weights and logs each. A method is one file in this folder.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from compat_lib.losses.heads import Classifier
from compat_lib.losses.task import TaskLoss
from compat_lib.old_system import OldSystem

METHODS: dict[str, type["CompatibilityLoss"]] = {}
REMEDIES = {  # how each part of an old system can be had
    "features": "pass features=[N, d] with labels=[N], one row for each image of the new training set",
    "prototypes": "pass features with labels (prototypes are their class means) or prototypes=[C, d]",
    "classifier": "pass classifier_weight=[C_old, d] with class_map=[C]",
    "model": "pass model=the old network",
    "oracle": "call with_oracle(features=[N, d_n]), features of a new model trained without compatibility",
}
CLASSIFICATION = r"\frac{1}{B}\sum_i \mathrm{CE}(W n_i, y_i)"  # the first term of nearly every method


@dataclasses.dataclass(frozen=True)
class Step:
    """Everything that a method may look at in one step of the training."""

    rows: Tensor  # int64 [B], rows of the new training set
    labels: Tensor  # int64 [B], their new labels
    embeddings: Tensor  # [E, d_n], new embeddings, not normalised, of the embedded rows in batch order
    embedded: Tensor | None  # bool [B], on the CPU: which rows were embedded (E of them); None: all
    old_features: Tensor | None  # float32 [B, d_o], of all rows, not normalised
    epoch: int  # 0..epochs-1
    epochs: int
    batch: int  # within the epoch, 0..batches-1
    batches: int
    progress: float  # fraction of all steps that are done, 0..1 (exclusive)
    generator: torch.Generator  # on the CPU, seeded by run seed and step
    oracle_features: Tensor | None = None  # float32 [B, d_n], of an independently trained new model

    def places(self, embedded: bool = True) -> Tensor:
        """Where in the batch the rows are that were embedded, or those that were not: int64, on their device.

        From the mask on the CPU, so that nobody waits for a GPU to count them.
        """
        mask = torch.ones(len(self.rows), dtype=torch.bool) if self.embedded is None else self.embedded
        return (mask == embedded).nonzero()[:, 0].to(self.rows.device, non_blocking=True)


class CompatibilityLoss(nn.Module):
    """Base of all methods: registers them by name, checks what they are given, keeps arithmetic in float32.

    A subclass sets `name`, `title`, `paper`, `needs` and `formulas`, takes its options as keywords with
    defaults after `old` and `classifier`, fills `weights`, and implements `terms`. What it learns besides the
    classifier it registers as parameters or buffers, and names in `learns`; they are trained, checkpointed
    and resumed without more ado. The other members are for methods that change what the network gives
    (`model_width`, `head`), refresh something (`start_epoch`), fit something after the training (`finish`),
    or compare features of unequal width (`comparable`).

    It is built of what is left of the old system (None where it needs nothing) and the new model's
    classifier; `needs`, where an option changes what it needs. A ValueError says what the old system lacks.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()  # of: features, prototypes, classifier, model, oracle
    one_width: ClassVar[bool] = False  # True: the new features must have the width of the old ones
    whole_classifier: ClassVar[bool] = False  # True: `terms` uses more of it than `loss`
    other_needs: ClassVar[tuple[frozenset[str], ...]] = ()  # what it needs instead with other options
    reconstruction: ClassVar[bool] = False  # True: the published code lacks the file that defines it
    published: ClassVar[dict[str, object]] = {}  # the source's values of options whose defaults differ here
    dropped: ClassVar[dict[str, object]] = {}  # options of earlier versions; digests of runs hold them
    formulas: ClassVar[dict[str, str]] = {}  # term -> LaTeX; the classification's is added
    learns: ClassVar[str] = ""  # what is trained besides the network and the classifier, in words
    asks: ClassVar[str] = "new model"  # what runs at query time, and what becomes of the gallery, in words

    weights: dict[str, float]  # one for each term; the loop computes the sum of weights[k] * terms[k]
    head: nn.Module | None = None  # turns the network's embeddings into the features that are stored
    task: TaskLoss | None = None  # the recipe's loss beside the classification, see `build_method`
    maps: tuple[Tensor, ...] = ()  # what the next generation knows as `OldSystem.maps`

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        cls.formulas = {"classification": CLASSIFICATION} | cls.formulas
        name = cls.__dict__.get("name")
        if name is None:  # an intermediate class, not a method
            return
        before = METHODS.get(name, cls)
        # A cell that is run again defines its method anew.
        if (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"Two methods are called {name!r}: {before.__module__}, {cls.__module__}.")
        METHODS[name] = cls

    def __init__(self, old: OldSystem | None, classifier: Classifier, *, needs: frozenset[str] | None = None):
        super().__init__()
        if needs is not None:
            self.needs = needs
        has = frozenset() if old is None else old.has
        if missing := sorted(self.needs - has):
            there = f"only {', '.join(sorted(has))} is there" if has else "no old system was given"
            remedies = "; ".join(f"for {name}, {REMEDIES[name]}" for name in missing)
            kinds = {name: (method.needs, *method.other_needs) for name, method in METHODS.items()}
            possible = sorted(name for name, kind in kinds.items() if any(one <= has for one in kind))
            raise ValueError(
                f"The method {self.name} needs the old system's {', '.join(missing)}, but {there}. To go on "
                f"with OldSystem.from_arrays or OldSystem.load, {remedies}. Methods that work with what is "
                f"there: {', '.join(possible)}."
            )
        if self.needs and old.num_classes != classifier.num_classes:
            raise ValueError(
                f"The old system has {old.num_classes} new classes, the classifier "
                f"{classifier.num_classes}. Both count the classes of the new training set: pass that "
                "number as num_classes to OldSystem.from_arrays and to Classifier."
            )
        if self.one_width:
            equal_widths(self.name, old, classifier)
        self.classifier = classifier
        self.weights = {"classification": 1.0}

    @property
    def embedded_share(self) -> float:
        """Expected share of a batch's rows that pass through the backbone, 0..1."""
        return 1.0

    def rows_to_embed(self, rows: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor | None:
        """Which rows of the batch must pass through the backbone: bool [B], or None for all.

        Asked before each step, with the generator and the rows that `Step` will have, on the CPU.
        """
        return None

    @classmethod
    def model_width(cls, old_width: int, new_width: int) -> int:
        """Coordinates that the network must give for stored features of `new_width`; `new_width` here."""
        return new_width

    def start_epoch(self, epoch: int, epochs: int, embed: Callable[[], Tensor]) -> None:
        """Called before each epoch, 0..epochs-1; for methods that refresh something. Does nothing here.

        An epoch that is resumed in its middle has had its call: what it refreshed must be a buffer that the
        checkpoint has.

        `embed` gives the network's present embeddings of the whole training set, float32 [N, d_n] on the CPU,
        in evaluation mode and without augmentation; it costs a pass.
        """

    def finish(self, embed: Callable[[], Tensor]) -> None:
        """Called once after the last epoch, seeded; for methods that fit something. `embed` as above."""

    def comparable(self, new: Tensor, old: Tensor) -> tuple[Tensor, Tensor] | None:
        """What the cross-test compares: stored new features [N, d] as queries, old ones [M, d_o] as gallery.

        None where the two cannot be compared, here when their widths differ.
        """
        return (new, old) if new.shape[1] == old.shape[1] else None

    def backfill_order(self, old: Tensor) -> Tensor | None:
        """Rows of old features [N, d_o] in the order in which to embed them again; None: nothing learnt."""
        return None

    def forward(self, step: Step) -> dict[str, Tensor]:
        """The unweighted terms of one step, float32 scalars with the names of `weights`."""
        if not 0 <= step.progress <= 1:  # a count of steps would give the whole margin at once
            raise ValueError(
                f"progress is {step.progress}; give the share of all steps that are done, 0 to 1"
            )
        for field, need in (("old_features", "features"), ("oracle_features", "oracle")):
            rows = getattr(step, field)
            # one row would be stretched over the whole batch without a word
            if (rows is None and need in self.needs) or (rows is not None and len(rows) != len(step.labels)):
                given = "None" if rows is None else len(rows)
                raise ValueError(
                    f"The method {self.name} needs {field} of {len(step.labels)} rows, one for each of the "
                    f"batch, not {given}. Pass them in Step; in `train`, pass old=, the old system that the "
                    "method was built with."
                )
        embeddings = step.embeddings
        with torch.autocast(embeddings.device.type, enabled=False):
            if embeddings.dtype in (torch.float16, torch.bfloat16):
                step = dataclasses.replace(step, embeddings=embeddings.float())
            terms = self.terms(step)
            for name, term in terms.items():
                if name not in self.weights or not isinstance(term, Tensor) or term.ndim:
                    raise TypeError(
                        f"{type(self).__name__}, term {name!r}: a term is a tensor without dimensions, as "
                        f"mean() gives, and has a weight; there are weights of {', '.join(self.weights)}"
                    )
            if self.task is not None:
                labels = step.labels if step.embedded is None else step.labels[step.places()]
                terms["task"] = self.task(self.classified(step.embeddings), labels)
            return terms

    def terms(self, step: Step) -> dict[str, Tensor]:
        """What `forward` returns, outside autocast and on float32 embeddings; each method has its own."""
        raise NotImplementedError

    def classified(self, embeddings: Tensor) -> Tensor:
        """What the classifier and the task's loss see of the network's embeddings: all of it here."""
        return embeddings

    def classification(self, step: Step) -> Tensor:
        """The classifier's loss on a batch of which every row was embedded; float32 scalar."""
        return self.classifier.loss(self.classified(step.embeddings), step.labels, step.progress)


def equal_widths(method: str, old: OldSystem, classifier: Classifier, advice: str = "") -> None:
    """Refuses an old and a new width that differ."""
    if old.width != classifier.width:
        raise ValueError(
            f"The method {method} needs old and new features of one width, not {old.width} (old) and "
            f"{classifier.width} (new). Build the new model with width {old.width}{advice}."
        )


def prototype_table(old: OldSystem, average: str, method: str) -> tuple[Tensor, Tensor]:
    """The old system's class means, float32 [C, d_o], not normalised, and which are present, bool [C].

    `average` is "raw" or "unit", see OldSystem.prototypes. Classes of the training set must all have one.
    """
    prototypes, present = old.prototypes(average), old.present
    needed = torch.ones_like(present)
    if old.labels is not None:
        needed = torch.bincount(old.labels, minlength=old.num_classes) > 0
    if average == "unit":  # taken from the features, also where prototypes were given
        present = needed
    missing = (needed & ~present).nonzero()[:, 0].tolist()
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise ValueError(
            f"The method {method} has no prototype for {len(missing)} classes of the training set: {shown}. "
            "Pass old features of images of these classes, or leave the classes out of the training set."
        )
    return prototypes, present

"""Portraits, the embedded data set: cartoon faces of made-up identities, rendered on first use.

An identity is a vector of 36 numbers (head, skin, hair, eyes, brows, nose, mouth and a few marks); an image
adds nuisances (pose, light, expression, an occluder, pixel noise). Nothing here looks like a real person.
The outliers are known: which labels are wrong and which faces are covered is part of the data set.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compat_lib.names import check_choice, check_number, checked_count

from .cache import cached_arrays
from .drawing import DRAWING, LIMIT, PARAMETER_NAMES, WORN, draw_nuisances, render
from .images import ImageSet, Place, Splits, data_root, seeded_generator, torch_defaults

OUTLIER_LABEL, OUTLIER_OCCLUSION = 1, 2  # 0: none
RANGES = {"outliers": (0, 0.5), "test_pose": (0, 1.5), "test_light": (0, 1.5)}  # of other knobs 0..1
LEAST = {"seed": 0, "size": 8, "identities": 2, "images": 1, "eval_identities": 2, "eval_images": 2}
LOOK = ("hair_light", "hair_red", "hair_blue", "hairline", "hair_width", "fringe", "beard", "glasses")
STORED = ("images", "labels", "outlier", "true_label")
_BLOCK_PIXELS = 128 * 32 * 32  # pixels rendered at a time: few enough for the processor's cache


@torch_defaults()
def portraits(
    root: Place,
    *,
    size: int = 32,
    seed: int = 0,
    identities: int = 1000,
    images: int = 20,
    eval_identities: int = 200,
    eval_images: int = 10,
    pose: float = 0.7,
    light: float = 0.7,
    expression: float = 0.6,
    occlusion: float = 0.15,
    noise: float = 0.04,
    outliers: float = 0.0,
    looks: int = 1,
    imbalance: float = 1.0,
    test_pose: float | None = None,
    test_light: float | None = None,
) -> Splits:
    """Return the portraits, rendered now or read from the cache under the data root.

    Source: ours. Training, validation and test have different identities, drawn from streams of their own:
    the number of training identities does not change the test set. Images are identity after identity.

    Args:
        root: data root, see `data_root`; the cache is `<root>/portraits/<digest of all arguments>`.
        size: pixels, height and width, 8 or more.
        seed: integer; the same arguments give the same bytes on one machine.
        identities, images: training identities, and images of each.
        eval_identities, eval_images: the same of the validation set, and of the test set with others.
        pose: strength of roll, yaw, pitch, scale and shift, 0..1.
        light: strength of gradient, gain and colour cast, 0..1.
        expression: movement of mouth and eyes, 0..1.
        occlusion: probability, 0..1, that a rectangle covers a part of the image.
        noise: standard deviation of the pixel noise, as a fraction of the full range, 0..1.
        outliers: fraction (not %) of training images that are outliers, 0..0.5; half of them have the label
            of a random other identity, half a large rectangle over the face.
        looks: 1, or 2: every image has one of an identity's two looks, at random, which differ in hair and
            beard and of which one wears glasses, so that a class has two centres.
        imbalance: images of the largest training class over those of the smallest, 1..images. Sizes fall from
            `images` as a geometric series, the long tail of Cui et al. (CVPR 2019, arXiv 1901.05555).
        test_pose, test_light: `pose` and `light`, 0..1.5, of a second test part "shifted", other images of
            the test's identities; None: the same as in training. Without either there is no such part.

    Returns:
        Splits of uint8 [N, 3, size, size]. Every part has the extras "outlier" int64 [N] (0 none, 1 wrong
        label, 2 occluded) and "true_label" int64 [N]; validation and test have no outliers.
    """
    if isinstance(size, tuple):
        raise ValueError(f"portraits are drawn as squares, not {size[0]} x {size[1]}: leave image_height out")
    given = zip(LEAST.items(), (seed, size, identities, images, eval_identities, eval_images), strict=True)
    counts = {name: checked_count(name, value, least) for (name, least), value in given}
    seed, size, identities, images, eval_identities, eval_images = counts.values()
    knobs = {"pose": pose, "light": light, "expression": expression, "occlusion": occlusion, "noise": noise}
    shifts = {"test_pose": test_pose, "test_light": test_light}
    shifts = {name: value for name, value in shifts.items() if value is not None}
    for name, value in {**knobs, **shifts, "outliers": outliers, "imbalance": imbalance}.items():
        check_number(name, value, *((1, images) if name == "imbalance" else RANGES.get(name, (0, 1))))
    looks = check_choice("looks", looks, (1, 2))
    knobs, shifts = ({name: float(value) for name, value in some.items()} for some in (knobs, shifts))
    made_of = {"outliers": float(outliers), "outlier_kind": "both" if outliers else "none"}
    # A kind stands here, and later knobs only when they are turned: caches of before remain what they are.
    made_of |= {"looks": looks} if looks > 1 else {}
    made_of |= {"imbalance": float(imbalance)} if imbalance > 1 else {}
    evaluated = torch.full((eval_identities,), eval_images)
    parts = {"train": class_sizes(identities, images, imbalance), "val": evaluated, "test": evaluated}
    parts |= {"shifted": evaluated} if shifts else {}

    def write(folder: Path) -> None:
        for part, sizes in parts.items():
            people = ("portraits", seed, "test" if part == "shifted" else part)
            who = draw_identities(len(sizes), seeded_generator(*people, "identities"))[None]
            if looks > 1:
                who = torch.cat([who, other_looks(who, seeded_generator(*people, "looks"))])
            other = {name.removeprefix("test_"): value for name, value in shifts.items()}
            strengths = knobs | other if part == "shifted" else knobs
            share = outliers if part == "train" else 0
            made = _draw_part(("portraits", seed, part), who, sizes, size, share, **strengths)
            for name, values in zip(STORED, made, strict=True):
                np.save(folder / f"{part}_{name}.npy", values.numpy())

    recipe = {"drawing": DRAWING, **made_of, **knobs, **counts, **shifts}
    bytes_of_all = 3 * size**2 * int(torch.cat([*parts.values()]).sum())
    arrays = cached_arrays(data_root(root) / "portraits", recipe, write, size=bytes_of_all)
    made = {}
    for part, sizes in parts.items():
        held = {name: torch.from_numpy(arrays[f"{part}_{name}"]) for name in STORED}
        prefix = "test" if part == "shifted" else part
        names = tuple(f"{prefix}-{number:04d}" for number in range(len(sizes)))
        made[part] = ImageSet(held.pop("images"), held.pop("labels"), names, held)
    return Splits("portraits", *(made.pop(part) for part in ("train", "val", "test")), other_tests=made)


def class_sizes(classes: int, largest: int, imbalance: float) -> Tensor:
    """Return int64 [classes], falling as a geometric series from `largest` to largest / imbalance.

    >>> class_sizes(3, 20, 4).tolist(), class_sizes(3, 20, 1).tolist()
    ([20, 10, 5], [20, 20, 20])
    """
    fall = torch.linspace(0, -1, classes, dtype=torch.float64)
    return (largest * imbalance**fall).round().long()


def draw_identities(count: int, generator: torch.Generator) -> Tensor:
    """Return identity parameters, standard normal and clamped to +-2.2, float32 [count, 36]."""
    return torch.randn(count, len(PARAMETER_NAMES), generator=generator).clamp_(-LIMIT, LIMIT)


def other_looks(identities: Tensor, generator: torch.Generator) -> Tensor:
    """Return the same identities, float32 [..., 36], with other hair and beard, and glasses on or off."""
    drawn = torch.randn(identities.shape, generator=generator).clamp_(-LIMIT, LIMIT)
    of = {name: PARAMETER_NAMES.index(name) for name in LOOK}
    other = identities.clone()
    other[..., [*of.values()]] = drawn[..., [*of.values()]]
    worn = identities[..., of["glasses"]] > WORN
    other[..., of["glasses"]] = torch.where(worn, -LIMIT, LIMIT)
    return other


def draw_outliers(
    labels: Tensor, num_classes: int, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Make round(share N) rows outliers; `labels` (int64 [N]) are the true ones of 2 or more classes.

    Returns:
        outlier int64 [N] (0 none, 1 wrong label, 2 occluded) and the labels int64 [N] that training sees.
    """
    count = round(share * len(labels))
    wrong, covered = torch.randperm(len(labels), generator=generator)[:count].tensor_split([count // 2])
    outlier, seen = torch.zeros_like(labels), labels.clone()
    outlier[wrong], outlier[covered] = OUTLIER_LABEL, OUTLIER_OCCLUSION
    step = torch.randint(1, num_classes, wrong.shape, generator=generator)  # never 0: always another identity
    seen[wrong] = (labels[wrong] + step) % num_classes
    return outlier, seen


def _draw_part(
    stream: tuple, who: Tensor, sizes: Tensor, size: int, share: float, *, noise: float, **knobs
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Render one part, as STORED, of identities [looks, classes, 36]; every kind of draw has its own stream,
    so that no knob disturbs another.
    """
    looks, people, _ = who.shape
    true_label = torch.arange(people).repeat_interleave(sizes)
    look = torch.randint(looks, true_label.shape, generator=seeded_generator(*stream, "look"))
    nuisances = draw_nuisances(len(true_label), seeded_generator(*stream, "nuisances"), **knobs)
    outlier, labels = draw_outliers(true_label, people, share, seeded_generator(*stream, "outliers"))
    occluded = outlier == OUTLIER_OCCLUSION  # by a large box in the middle
    place = torch.rand(len(outlier), 4, generator=seeded_generator(*stream, "covers"))
    large = torch.cat([place[:, :2] * 0.2 - 0.1, place[:, 2:] * 0.15 + 0.45], dim=1)
    nuisances["box"] = torch.where(occluded[:, None], large, nuisances["box"])
    nuisances["covered"] |= occluded
    pixels = torch.empty(len(true_label), 3, size, size, dtype=torch.uint8)
    block = max(1, _BLOCK_PIXELS // size**2)

    def render_block(start: int) -> None:
        rows = slice(start, start + block)
        how = {name: values[rows] for name, values in nuisances.items()}
        # A stream for each block: their order does not matter.
        grain = seeded_generator(*stream, "noise", start)
        pixels[rows] = render(who[look[rows], true_label[rows]], how, size, noise=noise, generator=grain)

    # Blocks side by side, each on one thread: faster than threads inside the small operations, and the bytes
    # cannot depend on how many threads there are.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(render_block, range(0, len(pixels), block)))
    finally:
        torch.set_num_threads(threads)
    return pixels, labels, outlier, true_label

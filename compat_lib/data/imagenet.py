"""ImageNet (ILSVRC 2012) and Places365: millions of files in class folders, streamed."""

from pathlib import Path

import numpy as np
from PIL import Image

from .decoding import Size
from .images import Place, Splits, data_root, with_validation
from .trees import class_folders, decode_classes, needed_folder

VAL_SHARE = 0.01  # of the training images of each class: 12,800 of ImageNet, 18,000 of Places365


def imagenet(
    root: Place, *, path: Place = None, size: Size = 224, seed: int = 0, validation: float = VAL_SHARE
) -> Splits:
    """Return ImageNet's 1,281,167 training images, streamed; its 50,000 validation images are the test.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (IJCV 2015). openBCT, FCT
    and BT2 retrieve within the validation images (protocol leave-one-out).

    The tree is `<root>/imagenet/{train,val}/<wnid>/*.JPEG`; docs/data_sets.md says how a flat `val` gets its
    folders. Classes are the WordNet numbers, in their order; images are cut by `centre_crop`.
    """
    return _trees("imagenet", root, path, "<wnid>/*.JPEG", size, seed, validation)


def places365(
    root: Place, *, path: Place = None, size: Size = 224, seed: int = 0, validation: float = VAL_SHARE
) -> Splits:
    """Return Places365-Standard's 1,803,460 training images, streamed; its 36,500 others are the test.

    Source: Zhou et al., "Places: A 10 million Image Database for Scene Recognition" (TPAMI 2018). openBCT
    retrieves within the validation images (protocol leave-one-out).

    `<root>/places365` holds the archive with the "easy directory structure", `{train,val}/<category>/*.jpg`.
    Classes are the folders, in the order of their names; images are cut by `centre_crop`.
    """
    return _trees("places365", root, path, "<category>/*.jpg", size, seed, validation)


def _trees(
    name: str, root: Place, path: Place, images: str, size: Size, seed: int, validation: float
) -> Splits:
    base = data_root(root) / name if path is None else Path(path).expanduser()
    layout = f"train/{images} and val/{images}; docs/data_sets.md says how a flat val gets its folders"
    places = [needed_folder(base, part, expected=layout) for part in ("train", "val")]
    found = [class_folders(place, layout) for place in places]
    parts = [decode_classes(one, size=size, shrink=centre_crop, stream=True) for one in found]
    return with_validation(name, *parts, seed=seed, share=validation, looked=VAL_SHARE)


def centre_crop(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Return the middle of an image, (height, width), once its short side is 256/224 of what is wanted.

    The usual transform of an evaluation on ImageNet, bilinear, as torchvision's Resize(256) and
    CenterCrop(224) give it. Augmentation in a training takes this crop and not the whole image.
    """
    (height, width), (wide, high) = size, image.size
    scaled_width, scaled_height = (side * 256 // 224 for side in (width, height))
    if wide * height <= high * width:
        scaled = scaled_width, scaled_width * high // wide
    else:
        scaled = scaled_height * wide // high, scaled_height
    left, top = (round((have - want) / 2) for have, want in zip(scaled, (width, height), strict=True))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + width, top + height)))

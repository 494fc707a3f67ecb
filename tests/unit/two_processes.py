"""Trains every method for a few steps, alone or as one of the processes that torchrun started.

torchrun --nproc-per-node=2 two_processes.py FOLDER     # writes rank0.pt and rank1.pt
"""

import os
import signal
import sys
from pathlib import Path

import torch
from method_steps import make_old

from compat_lib import distributed
from compat_lib.checkpoint import Interrupted
from compat_lib.config import ExperimentConfig
from compat_lib.experiment import Experiment
from compat_lib.losses import METHODS, build_method
from compat_lib.losses.heads import Classifier
from compat_lib.models import build_model
from compat_lib.training import TrainingSettings, embed_together, train

CLASSES, WIDTH = 5, 6
SETTINGS = TrainingSettings(
    epochs=1, batch_size=8, lr=0.05, seed=3, shift=1, precision="float32", sync_batchnorm=True
)
CASES = {  # name -> method, classifier, other arguments of build_method
    **{name: (name, {"kind": "arcface"}, {}) for name in sorted(METHODS)},
    "smoothed": ("independent", {"kind": "linear", "label_smoothing": 0.1}, {}),
    "sampled": ("lce", {"kind": "arcface", "sample": 0.5}, {}),
    "simplex": ("hoc", {"kind": "simplex"}, {}),
    "triplet": ("mixbct", {"kind": "cosface"}, {"task_loss": "triplet"}),
}


def experiment_config(root):
    """A tiny experiment that trains an old and a new model, and fits adapters to all training features."""
    return ExperimentConfig(
        dataset_options={"identities": 12, "images": 4, "eval_identities": 4, "eval_images": 3},
        **{"image_size": 16, "old_epochs": 1, "epochs": 2, "batch_size": 8, "bootstrap_draws": 2},
        **{"precision": "float32", "sync_batchnorm": True, "runs_root": str(root)},
    )


def train_case(name, settings=SETTINGS, stop_at=None, **more):
    """History, weights of the network and state of the method, after three steps.

    With `stop_at` the last process gets SIGTERM in that step, and None is returned.
    """
    kind, classifier, options = CASES[name]
    old = make_old(classes=CLASSES, per_class=5, width=WIDTH)
    pixels = torch.randint(256, (25, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    model = build_model("convnet-half", width=METHODS[kind].model_width(WIDTH, WIDTH), size=16)
    method = build_method(kind, old, Classifier(width=WIDTH, num_classes=CLASSES, **classifier), **options)
    dealt = []

    def watch(module, arguments):
        dealt.append(len(method.classifier.weight))
        if len(dealt) == stop_at and distributed.rank() + 1 == distributed.world():
            os.kill(os.getpid(), signal.SIGTERM)

    method.register_forward_pre_hook(watch)
    more = {"old": old, "say": lambda line: None} | more
    try:
        history = train(model, method, pixels.to(torch.uint8), old.labels, settings, **more)
    except Interrupted as end:
        assert stop_at and end.code == 143
        return None
    losses = {key: value for row in history for key, value in row.items() if key.startswith("loss/")}
    return {
        "losses": losses,
        "model": {key: value.clone() for key, value in model.state_dict().items()},
        "method": {key: value.clone() for key, value in method.state_dict().items()},
        "dealt": dealt,
        "embedded": history[-1]["backbone_images"],
    }


def sampled_case():
    """Loss, and its slopes, of a sample of classes that were not dealt out."""
    torch.manual_seed(7)
    classifier = Classifier("linear", 4, 40, sample=0.25)
    embeddings, labels = torch.randn(5, 4), torch.tensor([7, 39, 0, 7, 12])
    torch.manual_seed(8 + distributed.rank())  # as the training does in each step
    loss = classifier.loss(embeddings, labels)
    return loss.detach(), *torch.autograd.grad(loss, [classifier.weight, classifier.bias])


def embed_case(out):
    """Embeddings of 25 images, of which each process has its share."""
    torch.manual_seed(6)
    model = build_model("convnet-half", width=WIDTH, size=16)
    pixels = torch.randint(256, (25, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    return embed_together(model, pixels.to(torch.uint8), out, precision="float32")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    distributed.start("cpu")
    results = {name: train_case(name) for name in CASES}
    results["drawn"] = sampled_case()
    results["rows"] = embed_case(folder / "rows.npy").clone()
    Experiment(experiment_config(folder / "runs"), say=lambda line: None).evaluate()
    train_case("simplex", checkpoint=folder / "simplex.pt")
    results["resumed"] = train_case("smoothed", checkpoint=folder / "alone.pt")
    assert train_case("smoothed", stop_at=2, checkpoint=folder / "pair.pt") is None
    torch.save(results, folder / f"rank{distributed.rank()}.pt")

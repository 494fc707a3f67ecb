"""The loop: repeatable, resumable, frozen where it must be, and clear when something breaks."""

import dataclasses
import math
import os
import signal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from compat_lib.checkpoint import Interrupted
from compat_lib.finite import NotFiniteError
from compat_lib.losses import METHODS, build_method
from compat_lib.losses.base import CompatibilityLoss
from compat_lib.losses.heads import Classifier
from compat_lib.models import build_model, embed
from compat_lib.old_system import OldSystem
from compat_lib.training import TrainingSettings, epoch_line, train

pytestmark = pytest.mark.precision
CLASSES, WIDTH = 6, 8
SETTINGS = TrainingSettings(epochs=3, batch_size=16, lr=0.05, seed=3)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % CLASSES
    centres = torch.randint(40, 216, (CLASSES, 3, 32, 32), generator=generator)
    noise = torch.randint(-30, 31, (48, 3, 32, 32), generator=generator)
    return (centres[labels] + noise).clamp(0, 255).to(torch.uint8), labels


def test_a_users_own_arrays_mean_what_they_say(images):
    pixels, labels = images
    _, _, expected = run(pixels, labels)
    for form in (pixels.numpy(), pixels.numpy()[:, ::-1].copy()[:, ::-1]):
        _, _, found = run(form, labels.int().tolist())
        assert found[-1]["loss/classification"] == expected[-1]["loss/classification"]
    for given, words in (
        ((pixels / 255, labels), "images must be whole numbers of 0 to 255, not torch.float32"),
        ((pixels[0], labels[:3]), r"images have the shape \[3, 32, 32\]; give \[N, C, H, W\]"),
        ((pixels.permute(0, 2, 3, 1), labels), r"images have the shape \[48, 32, 32, 3\]"),
        ((257 * pixels.int(), labels), "images must be whole numbers of 0 to 255, and hold [0-9]+ to 6"),
        ((pixels, labels.float()), "labels must be whole numbers, not torch.float32"),
        ((pixels, labels + 1), "labels must hold 0 to 5, but row 5 has 6; number the classes from 0"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            run(*given)
    with pytest.raises(TypeError, match="images must be whole numbers of 0 to 255"):
        embed(build_model("convnet-half", width=WIDTH), pixels / 255, precision="auto")


def old_system(images, labels):
    torch.manual_seed(11)
    model = build_model("convnet-half", width=WIDTH)
    features = embed(model, images, precision="auto")
    oracle = embed(build_model("convnet", width=WIDTH), images, precision="auto")
    tables = {"classifier_weight": torch.randn(3, WIDTH), "class_map": [0, -1, 1, -1, 2, -1]}
    old = OldSystem.from_arrays(features, labels, num_classes=CLASSES, model=model, **tables)
    return old.with_oracle(oracle)


def parts(name="independent", old=None, seed=5, options=None, kind="arcface"):
    """A network and its method, from random numbers of this seed."""
    torch.manual_seed(seed)
    model = build_model("convnet", width=METHODS[name].model_width(WIDTH, WIDTH))
    return model, build_method(name, old, Classifier(kind, WIDTH, CLASSES), **(options or {}))


def quiet(line):
    pass


def run(images, labels, name="independent", settings=SETTINGS, old=None, options=None, **more):
    model, method = parts(name, old, options=options)
    history = train(model, method, images, labels, settings, old=old, **{"say": quiet} | more)
    return model, method, history


def same_weights(first, second):
    sides = (first.state_dict().values(), second.state_dict().values())
    return all(torch.equal(a, b) for a, b in zip(*sides, strict=True))


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "float16"}, {"precision": "bfloat16"}, {"accumulate": 2}]
    + [pytest.param({"compile": True}, marks=pytest.mark.slow)],
)
def test_it_learns_also_in_half_precision_in_parts_and_compiled(images, changes):
    settings = TrainingSettings(epochs=8, batch_size=16, lr=0.05, **changes)
    with torch.compiler.set_stance("force_eager"):  # compiling itself takes half a minute, and is torch's
        model, _, history = run(*images, settings=settings)
    assert history[-1]["loss/classification"] < (0.6 if changes else 0.5) * history[0]["loss/classification"]
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert [row["backbone_images"] for row in history] == [48] * 8
    assert "classification" in epoch_line(history[0], 8)
    assert all(not key.startswith("_orig_mod") for key in model.state_dict())


def test_equal_seeds_repeat_to_the_bit_whatever_the_caller_is_in_and_others_do_not(images):
    first, again = run(*images)[0], run(*images)[0]
    assert same_weights(first, again)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert same_weights(first, run(*images)[0])
    assert not same_weights(first, run(*images, settings=dataclasses.replace(SETTINGS, seed=4))[0])


class Stop(Exception):
    """Stands for a kill."""


ENDS = [(name, "after an epoch") for name in sorted(METHODS)]
ENDS += [(name, how) for name in ("advbct", "mixbct", "nccl", "unibct") for how in ("within one", "sigterm")]


@pytest.mark.parametrize(("name", "ended"), ENDS)
def test_ended_and_resumed_equals_uninterrupted(images, name, ended, tmp_path):
    """And the old system stays as it was."""
    old = old_system(*images)
    tensors = {key: value.clone() for key, value in vars(old).items() if isinstance(value, torch.Tensor)}
    weights = {key: value.clone() for key, value in old.model.state_dict().items()}
    whole, method, history = run(*images, name=name, old=old)
    assert all(torch.equal(value, getattr(old, key)) for key, value in tensors.items())
    assert all(torch.equal(value, weights[key]) for key, value in old.model.state_dict().items())
    assert not old.model.training
    assert all(p.grad is None and not p.requires_grad for p in old.model.parameters())
    calls = []

    def end(module, arguments):
        calls.append(1)
        if len(calls) == 6 and ended == "within one":  # the last step of the second epoch
            raise Stop
        if len(calls) == 5 and ended == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)

    def say(line):
        if line.startswith("epoch 2") and ended == "after an epoch":
            raise Stop

    settings = dataclasses.replace(SETTINGS, checkpoint_steps=2 if ended == "within one" else 0)
    path = tmp_path / "checkpoint.pt"
    model, interrupted = parts(name, old)
    interrupted.register_forward_pre_hook(end)
    with pytest.raises(Interrupted if ended == "sigterm" else Stop):
        train(model, interrupted, *images, settings, old=old, checkpoint=path, say=say)
    # a fresh process would build these anew, with whatever state the global generator has
    model, resumed = parts(name, old, seed=99)
    left = []
    resumed.register_forward_pre_hook(lambda module, arguments: left.append(1))
    rest = train(model, resumed, *images, SETTINGS, old=old, checkpoint=path, say=quiet)
    assert len(left) == (3 if ended == "after an epoch" else 4), "of nine steps"
    assert same_weights(whole, model) and same_weights(method, resumed)
    same = ("loss/total", "backbone_images")
    assert [[row[k] for k in same] for row in rest] == [[row[k] for k in same] for row in history]


@pytest.mark.parametrize("where", ["validation", "finish"])
def test_a_sigterm_after_the_last_step_ends_the_training_too(images, where, tmp_path):
    old = old_system(*images)
    whole, method, _ = run(*images, name="fct", old=old)
    keeps = {"old": old, "checkpoint": tmp_path / "checkpoint.pt", "say": quiet}

    def end(_):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    model, interrupted = parts("fct", old)
    if where == "finish":
        interrupted.finish = end
    look = {"validate": end, "validate_every": SETTINGS.epochs} if where == "validation" else {}
    with pytest.raises(Interrupted):
        train(model, interrupted, *images, SETTINGS, **keeps, **look)
    model, resumed = parts("fct", old, seed=99)
    train(model, resumed, *images, SETTINGS, **keeps)
    assert same_weights(whole, model) and same_weights(method, resumed)


class Reads(TorchDispatchMode):
    """Counts the numbers that Python takes out of tensors; for each of them a GPU would be waited for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_step_waits_for_a_number(images, name, monkeypatch):
    monkeypatch.setattr("compat_lib.finite.Watch.look", lambda watch: watch.noted.clear())  # once in 50 steps
    old, seen, reads = old_system(*images), [], Reads()
    model, method = parts(name, old)
    method.register_forward_pre_hook(lambda *_: seen.append(reads.count))
    settings = dataclasses.replace(SETTINGS, epochs=1, erase=0.5)
    with reads:
        train(model, method, *images, settings, old=old, say=lambda line: None)
        before = reads.count
        torch.ones(1, requires_grad=True).item()
    assert len(seen) == 3 and len(set(seen)) == 1, seen
    assert reads.count == before + 1, "they are counted"


def test_checkpoints_by_the_clock(images, tmp_path):
    path, found = tmp_path / "checkpoint.pt", []

    class Looks(METHODS["independent"]):
        name = None

        def terms(self, step):
            if step.batch or step.epoch:
                state = torch.load(path, weights_only=True)
                found.append(3 * len(state["history"]) + state["step"])
            return super().terms(step)

    settings = dataclasses.replace(SETTINGS, checkpoint_minutes=1e-9)
    method = Looks(None, Classifier("arcface", WIDTH, CLASSES))
    train(parts()[0], method, *images, settings, checkpoint=path, say=quiet)
    assert found == list(range(1, 9)), "one after every step"


def test_a_checkpoint_of_something_else_or_a_damaged_one_is_not_taken_for_this_one(images, tmp_path):
    pixels, labels = images
    old, path = old_system(pixels, labels), tmp_path / "checkpoint.pt"
    given = {"images": pixels, "labels": labels, "name": "hot_refresh", "old": old, "checkpoint": path}
    model, _, _ = run(**given)
    assert same_weights(model, run(**given)[0])
    for what, changes in (
        ("lr", {"settings": dataclasses.replace(SETTINGS, lr=0.06)}),
        ("images", {"images": pixels.flip(3)}),
        ("images", {"made_of": {"images": "others"}}),
        ("weights", {"options": {"weight": 0.5}}),
        ("negatives", {"options": {"negatives": 3}}),
        ("old features", {"old": dataclasses.replace(old, features=-old.features)}),
    ):
        with pytest.raises(ValueError, match=rf"other settings \({what}\); delete it"):
            run(**given | changes)
    model, method = parts("hot_refresh", old)
    method.classifier.margin = 0.1
    with pytest.raises(ValueError, match=r"other settings \(classifier\.margin\)"):
        train(model, method, pixels, labels, SETTINGS, old=old, checkpoint=path, say=quiet)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        run(**given)


def test_what_cannot_train_is_refused(images):
    pixels, labels = images
    old = old_system(*images)
    with pytest.raises(ValueError, match="needs two"):
        run(*images, name="mixbct", old=old, options={"mix_ratio": 1.0, "credible_share": 1.0})
    settings = dataclasses.replace(SETTINGS, accumulate=4)
    with pytest.raises(ValueError, match="accumulate is 4"):  # eight rows or more, in four parts of two
        run(*images, name="mixbct", old=old, settings=settings, options={"mix_ratio": 0.6})
    few = OldSystem.from_arrays(torch.randn(7, WIDTH), torch.arange(7) % CLASSES, num_classes=CLASSES)
    with pytest.raises(ValueError, match="features of 7 rows, the training set has 48"):
        run(*images, name="l2", old=few)
    with pytest.raises(ValueError, match=r"40 rows have another label .* the first row 0 \(1 and 0\)"):
        run(pixels, labels, name="bct", old=old_system(pixels, torch.tensor([1, 0, 2, 4, 5, 3])[labels]))
    model, _ = parts()
    own = OldSystem.from_arrays(torch.randn(48, WIDTH), labels, model=model)
    method = build_method("l2", own, Classifier("arcface", WIDTH, CLASSES))
    with pytest.raises(ValueError, match="has parameters of the old one.*copy.deepcopy"):
        train(model, method, pixels, labels, SETTINGS, old=own)  # once nothing but the classifier trained


def test_the_callers_random_numbers_go_on_as_if_nothing_had_trained(images):
    model, method = parts(kind="linear")
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    train(model, method, *images, SETTINGS, say=quiet)
    assert torch.equal(torch.rand(3), expected)


def test_a_broken_loss_stops_the_run_with_its_term_and_cause(images):
    class Broken(CompatibilityLoss):
        def terms(self, step):
            term = step.embeddings.sum() * (math.nan if step.epoch == 1 else 0.0)
            return {"classification": self.classification(step), "extra": term}

    method = Broken(None, Classifier("arcface", WIDTH, CLASSES))
    method.weights = {"classification": 1.0, "extra": 1.0}
    with pytest.raises(NotFiniteError, match="epoch 2, step 1: loss term extra .* arithmetic"):
        train(parts()[0], method, *images, SETTINGS, say=quiet)


def test_a_warm_up_longer_than_the_training_is_told(images):
    settings, said = dataclasses.replace(SETTINGS, epochs=1, warmup_steps=30), []
    (row,) = run(*images, settings=settings, say=said.append)[2]
    assert said[0] == "warmup_steps is 30, and the training has 3: the rate stays below lr"
    assert row["lr"] == pytest.approx(0.1 * SETTINGS.lr)


def test_validation_is_called_as_often_as_asked_and_always_last(images):
    seen = []
    look = {"validate": lambda model: seen.append(1) or {"new_new/x": 0.5}, "validate_every": 2}
    _, _, history = run(*images, **look)
    assert len(seen) == 2
    assert ["val/new_new/x" in row for row in history] == [False, True, True]


class Curious(CompatibilityLoss):
    """Not a method (it has no name): writes down what the loop offers."""

    name, title = None, "Curious"
    needs = frozenset({"features", "oracle"})

    def __init__(self, old, classifier):
        super().__init__(old, classifier)
        self.heard, self.training_at = [], []

    def start_epoch(self, epoch, epochs, embed):
        if epoch == 1:
            self.heard.append(("refreshed", embed()))

    def finish(self, embed):
        self.heard.append(("finished", embed()))

    def terms(self, step):
        self.heard.append(("step", step))
        self.training_at.append(self.training)
        return {"classification": self.classification(step)}


def test_the_loop_gives_a_method_what_it_asks_for(images):
    old = old_system(*images)
    model, _ = parts()
    method = Curious(old, Classifier("arcface", WIDTH, CLASSES))
    history = train(model, method, *images, SETTINGS, old=old, say=quiet)
    steps = [value for word, value in method.heard if word == "step"]
    for step in steps:
        assert torch.equal(step.oracle_features, old.oracle_features[step.rows])
    words = [word for word, _ in method.heard]
    assert words.index("refreshed") == 3 and words[-1] == "finished"
    refreshed, finished = (method.heard[at][1] for at in (3, -1))
    assert refreshed.shape == finished.shape == (48, WIDTH) and not torch.equal(refreshed, finished)
    assert torch.equal(finished, embed(model, images[0], precision="auto"))
    assert [row["backbone_images"] for row in history] == [48, 96, 96]
    assert all(method.training_at)
    assert all(row["processor_seconds"] > 0 for row in history)


def test_a_pass_for_a_refresh_does_not_change_the_training(images):
    model, method = parts()
    method.start_epoch = lambda epoch, epochs, embed: embed()
    train(model, method, *images, SETTINGS, say=quiet)
    assert same_weights(model, run(*images)[0])

"""Networks of others: torchvision's, timm's and the reader's own, whose changes are changed runs."""

import sys

import pytest
import torch
from tiny_runs import silent, tiny

from compat_lib.models import build_model, refuse_model
from compat_lib.networks import foreign
from compat_lib.networks.backbones import digests


@pytest.mark.parametrize(
    ("name", "features"),  # in front of the classifier, by the papers
    [("resnet18", 512), ("alexnet", 4096), ("squeezenet1_1", 512), ("googlenet", 1024)]
    + [(name, 768) for name in ("convnext_tiny", "swin_t", "vit_b_32")],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_a_network_of_torchvision_loses_its_classifier_and_no_more(name, features):
    with torch.device("meta"):
        model = build_model(f"torchvision:{name}", width=16, size=224)
        assert model.project.in_features == features
        assert model.backbone(torch.zeros(2, 3, 224, 224)).shape == (2, features)  # in training mode


def test_grey_images_are_repeated_for_a_network_of_three_channels():
    torch.manual_seed(0)
    name = "torchvision:shufflenet_v2_x0_5"
    model = build_model(name, width=8, channels=1, size=32).eval()
    grey = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(grey), model(grey.expand(2, 3, 32, 32)))
    assert build_model(name, width=8, size=32).inputs is None


def test_timm_gives_pooled_features_and_its_vision_transformers_any_size():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = build_model("timm:resnet10t", width=8, size=(64, 32)).eval()
    torch.manual_seed(0)
    theirs = timm.create_model("resnet10t", num_classes=0).eval()
    pixels = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.allclose(model.backbone(pixels), theirs(pixels), atol=1e-5)
    refuse_model("timm:vit_small_patch16_224", size=112)
    with pytest.raises(ValueError, match="'timm:resnet10x' is unknown to timm; near it are .*resnet10t"):
        build_model("timm:resnet10x")
    assert foreign.timm_scaling("resnet18", "a1_in1k")[0] == (0.485, 0.456, 0.406)
    assert digests("timm:resnet18", "pretrained") == {"weights": "resnet18.a1_in1k"}


@pytest.mark.skipif("timm" in sys.modules, reason="timm is installed")
def test_without_timm_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        build_model("timm:resnet18")


SOURCE = """
from torch import nn

def whole():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU())

def told(channels, size, depth=1):
    sizes.append(size)
    return nn.Conv2d(channels, 4, 3, stride=4)

def function():
    return abs

def pair():
    return nn.LSTM(32, 4)

sizes = []
"""


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A working directory with a module of the reader's; gives a function that (re)writes it."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "readers_network.py").write_text(text)
        sys.modules.pop("readers_network", None)
        sys.path_importer_cache.clear()
        foreign.own_function.cache_clear()
        refuse_model.cache_clear()

    write(SOURCE)
    yield write
    write("")
    sys.modules.pop("readers_network", None)


def test_a_function_of_the_readers_is_told_what_it_asks_for(reader):
    assert build_model("readers_network:whole", width=8)(torch.zeros(2, 3, 32, 32)).shape == (2, 8)
    told = build_model("readers_network:told", width=8, channels=1, size=(48, 32))
    assert told.inputs is None and told.backbone.in_channels == 1
    build_model("readers_network:told", width=4, size=32, head="bn-neck")
    assert sys.modules["readers_network"].sizes == [(48, 32), 32]
    assert sys.path == [place for place in sys.path if place]  # nothing is left there
    grey = build_model("readers_network:whole", width=8, channels=1)
    assert grey(torch.zeros(2, 1, 32, 32)).shape == (2, 8)


def test_what_is_not_there_or_no_network_is_refused(reader):
    for name, sentence in (
        ("torchvision:resnet19", "near it are resnet"),
        ("torchvision:vit_b_16", "cannot take images of 3 x 32 x 32 .*Wrong image height"),
        ("readers_network:absent", "readers_network has no function absent"),
        ("no_such_module:network", "no_such_module cannot be imported"),
        ("readers_network:function", "must give an nn.Module; got builtin_function_or_method"),
        ("readers_network:pair", "cannot take images of 3 x 32 x 32|must give one tensor"),
        ("resnet81", "'resnet81' is unknown; choose one of convnet, .*MODULE:FUNCTION"),
    ):
        with pytest.raises(ValueError, match=sentence):
            build_model(name, size=32)
    with pytest.raises(ValueError, match="'V9' of resnet18 are unknown; choose one of IMAGENET1K_V1"):
        build_model("torchvision:resnet18", weights="V9")
    with pytest.raises(ValueError, match="colour images above 64 x 64 pixels.*torchvision:resnet18"):
        build_model("resnet18", weights="DEFAULT", size=32)
    assert digests("resnet18", "DEFAULT") == {"weights": "ResNet18_Weights.IMAGENET1K_V1"}


def test_a_changed_network_is_a_changed_run(reader, tmp_path):
    network = {"old_backbone": "readers_network:whole", "new_weights": "start.pth", "flip_test": True}
    config = tiny(tmp_path, **network, old_epochs=1, epochs=1, bootstrap_draws=0)

    def experiment(**changes):
        return silent(config.changed(**changes))

    with pytest.raises(ValueError, match="weights start.pth cannot be read"):  # before anything is trained
        experiment()
    torch.save(build_model("convnet").backbone.state_dict(), tmp_path / "start.pth")
    first = experiment()
    run = first.evaluate()
    assert {"old network", "weights"} <= set(run.config["made_of"])
    mirrored = first.embed(first.new.model, first.data.test.images.flip(3))
    plain = first.embed(first.new.model, first.data.test.images)
    assert torch.allclose(first.new.test, plain + mirrored, atol=1e-5)

    torch.save(build_model("convnet").backbone.state_dict(), tmp_path / "start.pth")
    with pytest.raises(ValueError, match="was made with other weights than now"):
        experiment().evaluate()
    reader(SOURCE.replace("stride=4), nn.ReLU()", "stride=4), nn.GELU()"))
    with pytest.raises(ValueError, match="was made with other old network than now"):
        experiment().train_old()
    assert experiment(old_head="bn-neck", old_width=4).config.experiment_id != config.experiment_id
    with pytest.raises(ValueError, match="set the width to 4, not 8"):
        experiment(old_head="bn-neck")

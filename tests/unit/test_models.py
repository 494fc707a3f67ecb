"""Backbones, the head's fixed batch norm, and embedding without side effects."""

import pytest
import torch

from compat_lib.models import build_model, embed, refuse_model, resolve_precision

SMALL = ("convnet", "convnet-half", "resnet-small", "mobilenet-v3", "resnet18")
IMAGES = [(name, *images) for name in SMALL for images in ((3, (32, 32)), (1, (64, 40)))]
IMAGES += [("resnet50-stride1", 1, (32, 32)), ("iresnet18", 1, (40, 24)), ("vit-small", 1, (32, 32))]


@pytest.mark.parametrize(("name", "channels", "size"), IMAGES)
def test_every_backbone_embeds_and_learns(name, channels, size):
    model = build_model(name, width=16, channels=channels, size=size)
    out = model(torch.randn(2, channels, *size))
    assert out.shape == (2, 16) and out.dtype == torch.float32
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", SMALL)
def test_statistics_keep_pace_with_a_short_training(name):
    modules = build_model(name, width=16, channels=3, size=32).modules()
    assert {module.momentum for module in modules if isinstance(module, torch.nn.BatchNorm2d)} == {0.1}


def test_the_head_is_linear_then_batch_norm_with_weight_one():
    model = build_model("convnet", width=8)
    assert model.project.bias is None
    assert not model.normalise.weight.requires_grad and (model.normalise.weight == 1).all()
    assert model.normalise.bias.requires_grad
    # in training mode each coordinate of a batch then has mean `bias` (0) and variance one
    out = model(torch.randn(64, 3, 32, 32))
    assert torch.allclose(out.mean(0), torch.zeros(8), atol=1e-5)
    assert torch.allclose(out.var(0, unbiased=False), torch.ones(8), atol=1e-2)


@pytest.mark.parametrize(("name", "million"), [("convnet", 0.09), ("resnet-small", 0.26), ("resnet18", 11.2)])
def test_sizes_are_what_the_documentation_says(name, million):
    count = sum(p.numel() for p in build_model(name).parameters())
    assert count / 1e6 == pytest.approx(million, rel=0.05)


def test_embedding_depends_on_the_image_alone_and_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    model = build_model("convnet", width=8)
    model(torch.randn(32, 3, 32, 32))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8)
    whole, parts = (embed(model, images, precision="float32", batch_size=size) for size in (512, 3))
    model.normalise.eval()  # a user has frozen it
    with pytest.raises(TypeError):
        embed(model, images / 255, precision="float32")
    assert model.training and model.backbone.training and not model.normalise.training
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(embed(model, images[4:5], precision="float32")[0], whole[4], atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not whole.requires_grad
    whole /= whole.norm(dim=1, keepdim=True)  # refused of what inference mode has made


def test_with_flip_an_embedding_is_the_sum_of_both_mirror_images():
    torch.manual_seed(0)
    model = build_model("convnet", width=8)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    found = embed(model, images, precision="float32", flip=True)
    mirrored = torch.from_numpy(images.numpy()[..., ::-1].copy())
    both = [embed(model, side, precision="float32") for side in (images, mirrored)]
    assert torch.allclose(found, both[0] + both[1], atol=1e-6)
    assert torch.allclose(embed(model, mirrored, precision="float32", flip=True), found, atol=1e-6)


@pytest.mark.parametrize("name", ["convnet", "resnet18-stride1"])
def test_a_neck_normalises_the_pooled_features_themselves(name):
    torch.manual_seed(0)
    backbone = build_model(name, width=8, size=(32, 24)).backbone
    with torch.no_grad():
        activations = backbone(pixels := torch.randn(8, 3, 32, 24))
    pooled = activations.double().flatten(2).mean(2) if activations.ndim == 4 else activations.double()
    width = pooled.shape[1]
    model = build_model(name, width=width, size=(32, 24), head="bn-neck")
    model.backbone.load_state_dict(backbone.state_dict())
    torch.nn.init.uniform_(model.normalise.weight)
    with torch.no_grad():
        found = model(pixels)
    spread = (pooled.var(0, unbiased=False) + 1e-5).sqrt()
    expected = (pooled - pooled.mean(0)) / spread * model.normalise.weight.detach()
    assert found.dtype == torch.float32 and torch.allclose(found.double(), expected, atol=1e-3)
    # the classifier without bias stays where the features are: only the scale is learned
    learned = {key for key, value in model.named_parameters() if value.requires_grad and "normalise" in key}
    assert learned == {"normalise.weight"} and not list(model.project.parameters())
    with pytest.raises(ValueError, match=f"set the width to {width}, not 100, or the head to linear"):
        build_model(name, width=100, size=(32, 24), head="bn-neck")


@pytest.mark.parametrize(
    ("name", "size", "positions"),
    [("resnet50", (256, 128), (16, 8)), ("resnet18", (256, 128), (16, 8)), ("resnet18", (64, 64), (16, 16))],
)
def test_a_last_stride_of_one_doubles_the_last_resolution(name, size, positions):
    seen = []
    with torch.device("meta"):
        for last in ("", "-stride1"):
            network = build_model(name + last, size=size).backbone
            network.layer4.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape[2:])))
            network(torch.zeros(1, 3, *size))
    assert seen == [tuple(side // 2 for side in positions), positions]


@pytest.mark.precision
def test_bfloat16_embeddings_are_close_to_float32():
    torch.manual_seed(0)
    model = build_model("resnet-small", width=8)
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    exact, rough = (embed(model, images, precision=p) for p in ("float32", "bfloat16"))
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.99


def test_what_is_unknown_or_impossible_is_refused():
    assert resolve_precision("cpu", "auto") in ("float32", "bfloat16")
    for call, sentence in (
        (lambda: build_model("vgg"), "'vgg' is unknown; choose one of convnet"),
        (lambda: build_model("convnet", size=8), "at least 16 pixels a side; got 8"),
        (lambda: build_model("convnet", size=(32, 8)), "at least 16 pixels a side; got 8"),
        (lambda: build_model("convnet", head="neck"), "head is 'neck'; choose one of linear, bn-neck"),
        (lambda: build_model("vit-small", size=(64, 32)), "squares of a multiple of 4 pixels; got 64 x 32"),
        (lambda: refuse_model("vit-small", size=100), "squares of a multiple of 16 pixels; got 100 x 100"),
        (lambda: build_model("convnet", weights="DEFAULT"), "can only be a file .*; got 'DEFAULT'"),
        (lambda: resolve_precision("cpu", "fp8"), "auto, float32, bfloat16"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()

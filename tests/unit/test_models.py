"""Backbones, the head's fixed batch norm, and embedding without side effects."""

import pytest
import torch

from compat_lib.models import BACKBONES, build_model, embed, resolve_precision


@pytest.mark.parametrize("name", sorted(BACKBONES))
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 64)])
def test_every_backbone_embeds_and_learns(name, channels, size):
    model = build_model(name, width=16, channels=channels, size=size)
    out = model(torch.randn(4, channels, size, size))
    assert out.shape == (4, 16) and out.dtype == torch.float32
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


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
    assert model.training
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(embed(model, images[4:5], precision="float32")[0], whole[4], atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not whole.requires_grad


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
        (lambda: resolve_precision("cpu", "fp8"), "auto, float32, bfloat16"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()

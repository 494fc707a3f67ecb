"""IResNet, the residual network of face recognition, whose stem keeps the resolution."""

from itertools import pairwise

from torch import Tensor, nn

LAYERS = {"iresnet18": (2, 2, 2, 2), "iresnet50": (3, 4, 14, 3), "iresnet100": (3, 13, 30, 3)}
_WIDTHS = (64, 64, 128, 256, 512)


class IResNet(nn.Module):
    """Float pixels ``[B, channels, H, W]`` to ``[B, 512, H/16, W/16]`` (rounded up), before the head.

    Source: Duta et al., Improved Residual Networks (arXiv 2004.04989), with the stem of ArcFace (arXiv
    1801.07698), as MixBCT (arXiv 2308.06948) trains it. Its published linear layer has a bias, which the
    batch norm behind it takes away again: the head of `EmbeddingModel` does without. `layers`: blocks at each
    of four resolutions.
    """

    def __init__(self, layers: tuple[int, int, int, int], channels: int = 3) -> None:
        super().__init__()
        # The names are those of the published files of weights, so that they can be read as they are.
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        for number, ((inputs, outputs), blocks) in enumerate(zip(pairwise(_WIDTHS), layers, strict=True), 1):
            parts = [_Block(inputs, outputs, 2), *(_Block(outputs, outputs, 1) for _ in range(blocks - 1))]
            self.add_module(f"layer{number}", nn.Sequential(*parts))
        self.bn2 = nn.BatchNorm2d(512)
        self.fc, self.features = nn.Identity(), nn.Identity()  # the published head, ours stands elsewhere
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Activations at a sixteenth of the resolution."""
        x = self.prelu(self.bn1(self.conv1(pixels)))
        return self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class _Block(nn.Module):
    """BN, convolution, BN, PReLU, convolution with the stride, BN."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))

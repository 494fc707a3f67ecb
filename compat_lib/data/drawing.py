"""The pencil of the portraits: identity numbers and nuisances in, cartoon faces out, in whole batches.

Shapes are soft layers, sigmoid(2 k d) of a signed distance d (positive inside) with k = 1.2 size/2, so that
an edge is about one pixel wide at every size. They are painted back to front. Coordinates run from -1 to 1
over the image, x to the right and y down; a tensor is [B, P] with P = size * size pixels, or [B, 1] for one
number per image.
"""

import torch
from torch import Tensor

WORN = 0.8  # glasses are worn above it
LIMIT = 2.2  # standard-normal draws are clamped here: no face falls apart, no pose leaves the frame
DRAWING = 1  # part of the cache's digest: raise it whenever the same numbers give other pixels
PARAMETER_NAMES = (
    "head_width", "head_height", "jaw", "skin_light", "skin_red", "skin_blue", "hair_light", "hair_red",
    "hair_blue", "hairline", "hair_width", "fringe", "eye_x", "eye_y", "eye_size", "eye_aspect", "eye_tilt",
    "iris_red", "iris_green", "iris_blue", "brow_y", "brow_tilt", "brow_thickness", "brow_length",
    "nose_length", "nose_width", "mouth_width", "mouth_y", "mouth_curve", "lip", "beard", "ear", "glasses",
    "cheek", "mole_x", "mole_y",
)  # fmt: skip


def draw_nuisances(
    count: int, generator: torch.Generator, *, pose: float, light: float, expression: float, occlusion: float
) -> dict[str, Tensor]:
    """Return what differs between images of one identity, float32, by name; the knobs stand in `portraits`.

    Every number is drawn whatever the knobs are, so none disturbs another.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator).clamp_(-LIMIT, LIMIT)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    return {
        "roll": normal() * (0.16 * pose),  # [B] radians
        "yaw": normal() * (0.45 * pose),  # [B] radians
        "pitch": normal() * (0.12 * pose),  # [B] shift of the features on the head
        "scale": 1 + normal() * (0.07 * pose),  # [B] factor
        "shift": normal(2) * (0.06 * pose),  # [B, 2] half images
        "mouth": normal() * (0.9 * expression),  # [B] added to the mouth's curve
        "eyes": normal() * (0.25 * expression),  # [B] added to the eyes' aspect
        "gradient": normal(2) * (0.22 * light),  # [B, 2] brightness from the centre to the right and down
        "gain": 1 + normal() * (0.13 * light),  # [B] factor on brightness
        "cast": 1 + normal(3) * (0.08 * light),  # [B, 3] factors on colour
        "background": uniform(0.1, 0.95, 3),  # [B, 3] colour, 0..1
        "slope": normal(2, 3) * 0.12,  # [B, 2, 3] its change to the right and down
        # [B, 4] occluder: centre x, y and half-sides
        "box": torch.cat([uniform(-0.75, 0.75, 2), uniform(0.12, 0.38, 2)], dim=1),
        "box_colour": uniform(0.0, 1.0, 3),  # [B, 3]
        "covered": uniform(0.0, 1.0) < occlusion,  # bool [B], occluder drawn or not
    }


def render(
    identities: Tensor,
    nuisances: dict[str, Tensor],
    size: int,
    *,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return one image per row, uint8 [B, 3, size, size].

    Args:
        identities: float32 [B, 36], in the order of PARAMETER_NAMES, about -2.2..2.2.
        nuisances: of `draw_nuisances`, B rows.
        noise: standard deviation of the pixel noise, fraction of the full range; the generator's, on the CPU.
    """
    centres = (torch.arange(size, dtype=torch.float32) + 0.5) * (2 / size) - 1
    x, y = centres.repeat(size)[None], centres.repeat_interleave(size)[None]  # [1, P]
    rises = nuisances["slope"][:, 0, :, None] * x[:, None] + nuisances["slope"][:, 1, :, None] * y[:, None]
    canvas = rises.add_(nuisances["background"][..., None])  # [B, 3, P]
    _Face(identities, nuisances, size, x, y).paint(canvas)
    side, down = (nuisances["gradient"][:, i, None] * axis for i, axis in enumerate((x, y)))
    brightness = (1 + side + down).mul_(nuisances["gain"][:, None])
    canvas.mul_(brightness[:, None]).mul_(nuisances["cast"][..., None])
    rows = nuisances["covered"].nonzero().flatten()
    if len(rows):
        centre_x, centre_y, half_x, half_y = nuisances["box"][rows].T[..., None]
        inside = torch.minimum(half_x - (x - centre_x).abs(), half_y - (y - centre_y).abs())
        alpha = torch.sigmoid(inside * (1.2 * size))[:, None]
        canvas[rows] = canvas[rows].lerp_(nuisances["box_colour"][rows][..., None], alpha)
    if noise:
        canvas.add_(torch.randn(canvas.shape, generator=generator), alpha=noise)
    pixels = canvas.mul_(255).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.view(len(identities), 3, size, size)


class _Face:
    """One batch of faces: geometry from the parameters, then the layers in painting order."""

    def __init__(
        self, identities: Tensor, nuisances: dict[str, Tensor], size: int, x: Tensor, y: Tensor
    ) -> None:
        self.hardness = 1.2 * size  # 2 k
        p = dict(zip(PARAMETER_NAMES, identities.T[..., None], strict=True))  # [B, 1] each
        self.p, self.n = p, nuisances
        self.half_width = 0.57 * (1 + 0.09 * p["head_width"])
        self.half_height = 0.71 * (1 + 0.08 * p["head_height"])
        # Image -> head: undo shift, roll and scale.
        dx, dy = x - nuisances["shift"][:, 0, None], y - nuisances["shift"][:, 1, None]
        cos = (torch.cos(nuisances["roll"]) / nuisances["scale"])[:, None]
        sin = (torch.sin(nuisances["roll"]) / nuisances["scale"])[:, None]
        self.u, self.v = dx * cos + dy * sin, dy * cos - dx * sin
        # Head -> face: features turn with yaw on a round head and shift with pitch.
        turned = torch.asin((self.u * (0.97 / self.half_width)).clamp_(-1, 1))
        self.fx = turned.sub_(0.55 * nuisances["yaw"][:, None]).mul_(self.half_width)
        self.fy = self.v - nuisances["pitch"][:, None]
        self.side = self.fx.abs()  # paired features are drawn once, on |x|
        self.skin = _colour(p, "skin", 0.74 + 0.11 * p["skin_light"], (1.14, 0.92, 0.76), 0.06)
        self.hair = _colour(p, "hair", 0.38 + 0.17 * p["hair_light"], (1.1, 0.95, 0.8), 0.13)

    def paint(self, canvas: Tensor) -> None:
        """Paint all layers on the canvas [B, 3, P], back to front."""
        self.canvas = canvas
        # The signed distance to the head, a superellipse whose lower half has the jaw's exponent.
        power = torch.where(self.v > 0, 2.3 + 0.4 * self.p["jaw"], 2.2)
        across = (self.u / self.half_width).abs_().clamp_(min=1e-4).pow_(power)
        along = (self.v / self.half_height).abs_().clamp_(min=1e-4).pow_(power)
        radius = across.add_(along).pow_(power.reciprocal_())
        head = radius.neg_().add_(1).mul_(self.half_width)
        self._back(head)
        self._skin_marks(head)
        self._eyes()
        self._nose_and_mouth(head)
        self._glasses()

    def _back(self, head: Tensor) -> None:
        """Hair behind the head, neck, ears, the head itself."""
        p, u, v = self.p, self.u, self.v
        fullness = p["hair_width"]
        wide, high = self.half_width * (1.14 + 0.1 * fullness), self.half_height * (1.08 + 0.06 * fullness)
        dome = (1 - _distance(u / wide, v / high)).mul_(wide)
        fall = torch.minimum(wide - u.abs(), 0.15 + 0.35 * fullness - v)  # below the ears: straight down
        self._layer(torch.where(v < 0, dome, fall), self.hair * 0.8)
        neck = torch.minimum(0.45 * self.half_width - u.abs(), v - 0.3)
        self._layer(neck, self.skin * 0.8)
        radius = 0.12 * (1 + 0.35 * p["ear"])
        self._layer(radius - _distance(u.abs() - self.half_width, v - 0.03), self.skin * 0.88)
        self._layer(head, self.skin)

    def _skin_marks(self, head: Tensor) -> None:
        """Cheeks, mole, beard, and the hair on top with its fringe."""
        p, on_head = self.p, self._alpha(head)
        cheek = _distance(self.side - 0.6 * self.half_width, self.fy - 0.2)
        blush = torch.sigmoid((0.13 - cheek) * 30).mul_(0.45 * torch.sigmoid(2 * p["cheek"])).mul_(on_head)
        self._mix(blush, self.skin * self.skin.new_tensor([[1.1], [0.62], [0.62]]))
        mole = _distance(self.fx - 0.17 * p["mole_x"], self.fy - 0.14 - 0.14 * p["mole_y"])
        self._mix(self._alpha(0.05 - mole).mul_(on_head), self.skin * 0.35)
        start = 0.3 + 0.035 * p["mouth_y"] - 1.1 * self.side.square()
        beard = self._alpha(self.fy - start).mul_(on_head).mul_(0.9 * torch.sigmoid(5 * (p["beard"] - 0.7)))
        self._mix(beard, self.hair * 0.9)
        relative = self.fx / self.half_width
        line = -0.5 * self.half_height * (1 + 0.28 * p["hairline"])
        line = line + relative * (0.07 * p["fringe"]) + relative.square() * (0.12 + 0.06 * p["fringe"])
        crown = torch.minimum(line - self.fy, head + 0.04)
        self._layer(crown, self.hair)

    def _eyes(self) -> None:
        """Whites, irises, pupils, brows."""
        p = self.p
        self.eye_x = self.half_width * (0.43 + 0.045 * p["eye_x"])
        self.eye_y = -0.05 + 0.05 * p["eye_y"]
        self.eye_size = 0.15 * (1 + 0.16 * p["eye_size"])
        aspect = (0.75 * (1 + 0.16 * p["eye_aspect"]) + 0.75 * self.n["eyes"][:, None]).clamp_(0.25, 1.3)
        dx, dy = self.side - self.eye_x, self.fy - self.eye_y
        along, across = _turn(dx, dy, 0.2 * p["eye_tilt"])
        high = self.eye_size * aspect
        radius = _distance(along / self.eye_size, across / high)
        white = self._alpha((1 - radius) * torch.minimum(high, self.eye_size))
        self._mix(white, self.canvas.new_tensor([[0.95], [0.95], [0.93]]))
        self.eye_distance = _distance(dx, dy)
        iris = torch.cat([p["iris_red"], p["iris_green"], p["iris_blue"]], 1)[..., None]
        self._mix(self._alpha(0.62 * self.eye_size - self.eye_distance).mul_(white), 0.42 + 0.2 * iris)
        pupil = self._alpha(0.3 * self.eye_size - self.eye_distance).mul_(white)
        self._mix(pupil, self.canvas.new_full((1, 1), 0.04))
        middle = self.eye_y - 0.21 - 0.035 * p["brow_y"]
        along, across = _turn(self.side - self.eye_x, self.fy - middle, 0.2 * p["brow_tilt"])
        thick, long = 0.04 * (1 + 0.38 * p["brow_thickness"]), 0.17 * (1 + 0.22 * p["brow_length"])
        self._layer(torch.minimum(long - along.abs_(), thick - across.abs_()), self.hair * 0.55)

    def _nose_and_mouth(self, head: Tensor) -> None:
        """A wedge that stands out of the face with yaw, and lips on a parabola."""
        p = self.p
        length = 0.24 * (1 + 0.22 * p["nose_length"])
        along = (self.fy - self.eye_y - 0.02) / length  # 0 at the bridge, 1 at the tip
        width = 0.085 * (1 + 0.3 * p["nose_width"]) * (along.clamp(0, 1) * 0.75 + 0.25)
        across = (self.fx - 0.12 * self.n["yaw"][:, None]).abs_()
        body = torch.minimum(along, 1 - along).mul_(length)
        self._layer(torch.minimum(body, width - across), self.skin * 0.74)
        half = 0.21 * (1 + 0.2 * p["mouth_width"])
        curve = 0.05 * (p["mouth_curve"] + self.n["mouth"][:, None])
        middle = 0.39 + 0.035 * p["mouth_y"] - curve * ((self.fx / half).square_() - 0.5)
        thick = 0.04 * (1 + 0.35 * p["lip"])
        mouth = torch.minimum(half - self.side, thick - (self.fy - middle).abs_())
        red = self.canvas.new_tensor([[0.72], [0.2], [0.25]])
        self._layer(torch.minimum(mouth, head), 0.4 * self.skin + 0.6 * red)

    def _glasses(self) -> None:
        """Two rings and a bridge, on about one identity in five."""
        ring = 0.022 - (self.eye_distance - self.eye_size - 0.05).abs_()
        inner = self.eye_x - self.eye_size - 0.05
        bridge = torch.minimum(0.022 - (self.fy - self.eye_y).abs_(), inner - self.side)
        worn = torch.sigmoid(8 * (self.p["glasses"] - WORN))
        self._mix(self._alpha(torch.maximum(ring, bridge)).mul_(worn), self.canvas.new_full((1, 1), 0.1))

    def _alpha(self, distance: Tensor) -> Tensor:
        """Turn a signed distance [B, P] (changed in place) into coverage, 0..1."""
        return torch.sigmoid(distance * self.hardness)

    def _layer(self, distance: Tensor, colour: Tensor) -> None:
        self._mix(self._alpha(distance), colour)

    def _mix(self, alpha: Tensor, colour: Tensor) -> None:
        """Paint a colour ([B, 3, 1], or fewer dimensions) with coverage [B, P]."""
        self.canvas.lerp_(colour, alpha[:, None])


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """Distance from the origin of coordinates [B, P], which are overwritten."""
    return x.square_().add_(y.square_()).sqrt_()


def _turn(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate coordinates [B, P] by an angle [B, 1] in radians."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _colour(
    p: dict[str, Tensor], what: str, light: Tensor, tint: tuple[float, float, float], spread: float
) -> Tensor:
    """Return a colour [B, 3, 1] in 0.03..1 from its lightness, a common tint and two deviations."""
    red, blue = p[f"{what}_red"], p[f"{what}_blue"]
    channels = [
        light * tint[0] + spread * red,
        light * tint[1] - 0.4 * spread * (red + blue),
        light * tint[2] + spread * blue,
    ]
    return torch.stack(channels, dim=1).clamp_(0.03, 1)

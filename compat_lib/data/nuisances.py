"""What differs between two portraits of one person: pose, light, expression, background, an occluder."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

LIMIT = 2.2  # standard-normal draws are clamped here: no face falls apart, no pose leaves the frame


@dataclass(frozen=True, eq=False)
class Nuisances:
    """What differs between two images of one identity; one row per image, float32.

    Args:
        roll: [B] radians; yaw: [B] radians; pitch: [B] shift of the features on the head.
        scale: [B] factor, about 1; shift: [B, 2] in half images.
        mouth: [B] added to the mouth's curve; eyes: [B] added to the eyes' aspect.
        gradient: [B, 2] change of brightness from the centre to the right and lower border.
        gain: [B] and cast: [B, 3], factors on brightness and colour, about 1.
        background: [B, 3] colour, 0..1; slope: [B, 2, 3] its change to the right and down.
        box: [B, 4] occluder, centre x, y and half-sides; box_colour: [B, 3]; covered: bool [B], drawn or not.
    """

    roll: Tensor
    yaw: Tensor
    pitch: Tensor
    scale: Tensor
    shift: Tensor
    mouth: Tensor
    eyes: Tensor
    gradient: Tensor
    gain: Tensor
    cast: Tensor
    background: Tensor
    slope: Tensor
    box: Tensor
    box_colour: Tensor
    covered: Tensor

    @classmethod
    def draw(
        cls,
        count: int,
        generator: torch.Generator,
        *,
        pose: float,
        light: float,
        expression: float,
        occlusion: float,
    ) -> Nuisances:
        """Return random nuisances; every number is drawn whatever the knobs are, so none disturbs another.

        Args:
            count: images.
            generator: CPU generator.
            pose, light, expression: strength, 0..1; at 0 every image has the same pose, light, expression.
            occlusion: probability of an occluder, 0..1.
        """

        def normal(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=generator).clamp_(-LIMIT, LIMIT)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.rand(count, *shape, generator=generator) * (high - low) + low

        return cls(
            roll=normal() * (0.16 * pose),
            yaw=normal() * (0.45 * pose),
            pitch=normal() * (0.12 * pose),
            scale=1 + normal() * (0.07 * pose),
            shift=normal(2) * (0.06 * pose),
            mouth=normal() * (0.9 * expression),
            eyes=normal() * (0.25 * expression),
            gradient=normal(2) * (0.22 * light),
            gain=1 + normal() * (0.13 * light),
            cast=1 + normal(3) * (0.08 * light),
            background=uniform(0.1, 0.95, 3),
            slope=normal(2, 3) * 0.12,
            box=torch.cat([uniform(-0.75, 0.75, 2), uniform(0.12, 0.38, 2)], dim=1),
            box_colour=uniform(0.0, 1.0, 3),
            covered=uniform(0.0, 1.0) < occlusion,
        )

    def cover(self, rows: Tensor, generator: torch.Generator) -> Nuisances:
        """Return the same nuisances with a large central occluder on the given rows (bool [B])."""
        place = torch.rand(len(rows), 4, generator=generator)
        large = torch.cat([place[:, :2] * 0.2 - 0.1, place[:, 2:] * 0.15 + 0.45], dim=1)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["box"] = torch.where(rows[:, None], large, self.box)
        values["covered"] = self.covered | rows
        return Nuisances(**values)

    def __getitem__(self, rows: slice | Tensor) -> Nuisances:
        return Nuisances(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def __len__(self) -> int:
        return len(self.roll)

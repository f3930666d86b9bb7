"""Square: random search over squares of an image, or over random subsets of a vector. Scores only, no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from calipers.attacks.method import Ask, Options, Rows, Seen, column, go_on
from calipers.attacks.result import AttackResult
from calipers.attacks.search import Queries, attack
from calipers.errors import BadInput
from calipers.models import Classifier, public
from calipers.runner.draws import Draws
from calipers.threats import Threat, norm_of, project

__all__ = ["square"]

# After these looks of 10,000 the squares' area is halved (Section 3.3 of the paper).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_TILES = 5


@dataclass(frozen=True)
class _Window:
    """A rectangle of every image: the place of each pixel in it (N, 1, h, w), its sides (N, 1, 1, 1)."""

    down: Tensor
    along: Tensor
    height: Tensor
    width: Tensor

    @property
    def inside(self) -> Tensor:
        """Which pixels lie in it: bool (N, 1, h, w)."""
        return (self.down >= 0) & (self.down < self.height) & (self.along >= 0) & (self.along < self.width)

    def bumps(self, turned: Tensor) -> Tensor:
        """Two pyramids of opposite sign side by side, Σ_{r ≥ ρ} 1/(r + 1)² at distance ρ from each half's centre."""
        down, along = torch.where(turned, self.along, self.down), torch.where(turned, self.down, self.along)
        height, width = torch.where(turned, self.width, self.height), torch.where(turned, self.height, self.width)
        half = height // 2
        first = down < half
        down, half = torch.where(first, down, down - half), torch.where(first, half, height - half)
        ring = torch.maximum((down - half // 2).abs(), (along - width // 2).abs())
        rings = torch.maximum(half, width) // 2 + 1
        tail = torch.arange(int(rings.max()) + 1, device=rings.device).add(1).double().pow(-2).cumsum(0)
        tail = torch.cat([tail[:1] * 0, tail])
        size = tail[rings] - tail[torch.minimum(ring.clamp_min(0), rings)]
        return torch.where(self.inside, torch.where(first, size, -size), 0.0)


@dataclass(frozen=True)
class _Square(Queries):
    minimal: bool = False
    share: float = 0.8

    def start(self, ask: Ask, rows: Rows) -> None:
        (c, h, w), n = _as_image(rows.x), len(rows)
        if ask.threat.norm == "linf":
            # Vertical stripes: what convolutions answer to.
            delta = _signs(ask.draws(rows, 0)("uniform", (n, c * w))).view(n, c, 1, w).expand(-1, -1, h, -1)
        else:
            delta = self._tiles(ask.draws(rows, 0), n, c, h, w)
        rows.z = getattr(rows, "top_z", rows.z)
        rows.z = go_on(ask, rows, self._placed(ask, rows, delta))
        rows.top, rows.top_z = torch.full_like(rows.eps, -torch.inf), rows.z

    def step(self, ask: Ask, rows: Rows, seen: Seen) -> None:
        more = seen.value > rows.top
        rows.top = torch.where(more, seen.value, rows.top)
        rows.top_z = torch.where(column(more, rows.z), rows.z, rows.top_z)
        norm, (c, h, w), n = ask.threat.norm, _as_image(rows.x), len(rows)
        delta = (rows.top_z - rows.x).view(-1, c, h, w)
        # All of a look's numbers at once: 2 corners, the turn, the signs, and what shuffles a vector.
        signs = c if h > 1 else w
        u = ask.draws(rows, rows.k + 1)("uniform", (n, 5 + signs + (w if h == 1 else 0)))
        sign, places = _signs(u[:, 5 : 5 + signs]).view(n, c, 1, -1), _places(u[:, 5 + signs :], h, w)
        side = self._side(rows.k + 1, h, w, pairs=norm == "l2")
        window = _window(side, u[:, :2], places, h, w)
        if norm == "linf":
            moved = torch.where(window.inside, sign * column(rows.eps, delta), delta)
        else:
            source = _window(side, u[:, 2:4], places, h, w).inside
            bumps = sign * window.bumps((u[:, 4] < (0.5 if h > 1 else 1.0)).view(n, 1, 1, 1))
            moved = _carried(delta, bumps, window.inside, source, rows.eps, 2 if norm == "l2" else 1)
        rows.z = project(rows.x + moved.view_as(rows.x), rows.x, rows.eps, norm, ask.model.box)

    def _side(self, look: Tensor, h: int, w: int, pairs: bool) -> Tensor:
        """The squares' side at this look; in a vector, the number of coordinates: int64 (N,)."""
        scaled = look * 10_000 // self.looks
        halvings = (scaled[:, None] > torch.tensor(_HALVINGS, device=look.device)).sum(1)
        area = self.share * 0.5**halvings * h * w
        side = (area.sqrt() if h > 1 else area).round().long().clamp_min(1)
        # One pixel is no pair of bumps: three, and odd, as in the published code. In L1 single pixels gain more.
        return side.clamp_min(3) // 2 * 2 + 1 if pairs and h > 1 else side

    def _tiles(self, draw: Draws, n: int, c: int, h: int, w: int) -> Tensor:
        """The first δ in L2 and L1: a grid of five by five pairs of bumps."""
        u = draw("uniform", (n, 1 + c * _TILES**2 + (w if h == 1 else 0)))
        down, along = (p.expand(n, 1, h, w) for p in _places(u[:, 1 + c * _TILES**2 :], h, w))
        height, width = -(-h // _TILES), -(-w // _TILES)
        sides = torch.tensor([height, width], device=u.device).expand(n, 1, 1, 2)
        tile = _Window(down % height, along % width, sides[..., :1], sides[..., 1:])
        which = (down // height) * _TILES + along // width
        sign = _signs(u[:, 1 : 1 + c * _TILES**2]).view(n, c, -1)
        sign = sign.gather(2, which.expand(-1, c, -1, -1).flatten(2)).view(n, c, h, w)
        return sign * tile.bumps((u[:, 0] < (0.5 if h > 1 else 1.0)).view(n, 1, 1, 1))

    def _placed(self, ask: Ask, rows: Rows, delta: Tensor) -> Tensor:
        """x + δ with δ as long as eps, inside the box."""
        flat, norm = delta.flatten(1).to(rows.x.dtype), ask.threat.norm
        size = torch.linalg.vector_norm(flat, ord=norm_of(norm), dim=1).clamp_min(torch.finfo(flat.dtype).tiny)
        move = (flat * (rows.eps / size)[:, None]).view_as(rows.x)
        return project(rows.x + move, rows.x, rows.eps, norm, ask.model.box)


def _window(side: Tensor, corner: Tensor, places: tuple[Tensor, Tensor], h: int, w: int) -> _Window:
    """A square with its corner anywhere that leaves it inside the image."""
    height, width = side.clamp_max(h), side.clamp_max(w)
    top, left = (corner[:, 0] * (h - height + 1)).long(), (corner[:, 1] * (w - width + 1)).long()
    height, width, top, left = (v.view(-1, 1, 1, 1) for v in (height, width, top, left))
    down, along = torch.broadcast_tensors(places[0] - top, places[1] - left)
    return _Window(down, along, height, width)


def _carried(delta: Tensor, bumps: Tensor, into: Tensor, source: Tensor, eps: Tensor, power: int) -> Tensor:
    """δ without its part in ``source``: ``into`` gets it, and what δ leaves unused, shaped as bumps + old direction.

    Algorithm 3 of the paper, channel by channel; Croce & Hein 2021 take it to L1.
    """
    bumps = bumps.to(delta.dtype)

    def mass(part: Tensor) -> Tensor:
        return part.abs().pow(power).sum((2, 3), keepdim=True)

    tiny = torch.finfo(delta.dtype).tiny
    old, both = delta * into, into | source
    unused = (column(eps, delta) ** power - mass(delta).sum(1, keepdim=True)).clamp_min(0) / delta.shape[1]
    amount = unused + mass(delta * both)
    bumps = bumps / mass(bumps).pow(1 / power).clamp_min(tiny)
    fresh = bumps + old / mass(old).pow(1 / power).clamp_min(tiny)
    # Old and new can cancel in a square of one pixel.
    fresh = torch.where(mass(fresh) > 1e-12, fresh, bumps)
    fresh = fresh * (amount / mass(fresh).clamp_min(tiny)).pow(1 / power)
    return torch.where(both, fresh * into, delta)


def _as_image(x: Tensor) -> tuple[int, int, int]:
    """Channels, rows and columns; anything but an image is one row."""
    shape = tuple(x.shape[1:])
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return (1, shape[0], shape[1]) if len(shape) == 2 else (1, 1, x[0].numel())


def _places(u: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel; the coordinates of a vector have no neighbours, and ``u`` shuffles them."""
    down = torch.arange(h, device=u.device).view(1, 1, h, 1)
    along = torch.arange(w, device=u.device).view(1, 1, 1, w) if h > 1 else u.argsort(dim=1).view(-1, 1, 1, w)
    return down, along


def _signs(u: Tensor) -> Tensor:
    """±1 with a fair coin."""
    return 1 - 2 * (u < 0.5).to(u)


@public
def square(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    steps: int = 5000,
    share: float = 0.8,
    **options: Unpack[Options],
) -> AttackResult:
    r"""Square attack: change one random square of the image, and keep the change if the margin grows.

    L∞: δ = ±eps in the square, one sign a channel. L2 and L1: the mass of a second square, and what is left of eps,
    move into the first in the shape of two bumps of opposite sign. The squares' area starts at ``share`` of the image
    and is halved nine times. A vector has no squares: random subsets of its coordinates take their place, each
    coordinate with a sign of its own.

    Arguments:
        model, x, y, threat, options: as for :func:`calipers.attacks.pgd`.
        steps: queries of the model per attempt; 5000 in AutoAttack, 10,000 in the paper.
        share: the first squares' share of the image; 0.8 in AutoAttack.

    Source: "Square Attack: a query-efficient black-box adversarial attack via random search" (Andriushchenko, Croce,
    Flammarion & Hein 2020), Algorithms 1 to 3; for L1 "Mind the Box" (Croce & Hein 2021), Appendix.

    Example:
        >>> model = Classifier.of(torch.nn.Flatten(), shape=(1, 2, 2))
        >>> x = torch.tensor([[[[0.6, 0.5], [0.4, 0.5]]]])
        >>> square(model, x, torch.tensor([0]), Threat("linf", 0.1), steps=20).success
        tensor([True])
    """
    if steps < 1:
        raise BadInput("steps of Square", expected="at least 1", got=steps)
    if not 0 < share <= 1:
        raise BadInput("share of Square", expected="a fraction above 0, at most 1", got=share)
    if threat.norm == "l0":
        raise BadInput("norm of Square", expected="linf, l2 or l1", got="'l0'", hint="pgd, fmn and noise take l0")
    return attack(_Square(steps, share=share), model, x, y, threat, **options)

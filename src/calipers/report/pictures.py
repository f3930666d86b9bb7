"""One input as a picture: grey and colour images as PNG, everything else as feature bars; a grid as a heat map."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

__all__ = ["Picture", "heat", "pictures", "strength"]

_BARS = 64
# From low to high: the page's blue and orange, and a pale middle.
_COLD, _MILD, _HOT = (0, 114, 178), (240, 240, 236), (213, 94, 0)


@dataclass(frozen=True)
class Picture:
    """A picture and what it shows: either ``png`` (a data URI) or ``bars`` (an SVG path in a 100 × 60 box)."""

    caption: str
    png: str = ""
    bars: str = ""

    @property
    def weight(self) -> int:
        """How many bytes it adds to the page."""
        return len(self.png) + len(self.bars)


def pictures(clean: np.ndarray, adversarial: np.ndarray, box: tuple[float, float] | None) -> tuple[Picture, ...]:
    r"""The clean input, the adversarial one, and their difference stretched to the full range.

    Arguments:
        clean: one input, shape (h, w), (1, h, w) or (3, h, w) for an image, else any.
        adversarial: the same shape.
        box: the values shown as black and white; by default the smallest and the largest of the two inputs.

    Example:
        >>> shown = pictures(np.zeros((1, 2, 2)), np.full((1, 2, 2), 0.5), (0.0, 1.0))
        >>> [picture.caption for picture in shown], shown[0].png[:22]
        (['clean', 'adversarial', 'difference, ±0.5'], 'data:image/png;base64,')
    """
    before, after = clean.astype(np.float64), adversarial.astype(np.float64)
    change = after - before
    peak = float(np.abs(change).max(initial=0.0))
    named = ("clean", "adversarial", f"difference, ±{peak:.2g}")
    if not _is_image(before):
        return _as_bars(before.ravel(), after.ravel(), named)
    low, high = box or (float(min(before.min(), after.min())), float(max(before.max(), after.max())))
    shown = (
        (before - low) / (high - low or 1.0),
        (after - low) / (high - low or 1.0),
        0.5 + change / (2 * peak or 1.0),
    )
    return tuple(Picture(caption, png=_png(values)) for caption, values in zip(named, shown, strict=True))


def strength(caption: str, x: np.ndarray) -> Picture:
    """How strong every feature of an array is, from none (black, no bar) to the strongest.

    Example:
        >>> strength("saliency", np.array([1.0, -2.0])).bars.count("M")
        2
    """
    size = np.abs(x.astype(np.float64)) / (float(np.abs(x).max(initial=0.0)) or 1.0)
    if _is_image(x):
        return Picture(caption, png=_png(size))
    kept = np.sort(np.argsort(-size.ravel(), kind="stable")[:_BARS])
    note = f" ({_BARS} largest of {x.size} features)" if x.size > _BARS else ""
    return Picture(caption + note, bars=_path(size.ravel()[kept], 0.0, 1.0))


def heat(caption: str, grid: np.ndarray) -> Picture:
    """A grid of numbers, lowest blue, highest orange; its first row is on top.

    Example:
        >>> heat("loss", np.eye(2)).png[:22]
        'data:image/png;base64,'
    """
    low, high = float(grid.min()), float(grid.max())
    t = (grid - low) / (high - low or 1.0)
    cold, mild, hot = (np.array(colour)[:, None, None] / 255 for colour in (_COLD, _MILD, _HOT))
    return Picture(
        caption, png=_png(np.where(t < 0.5, cold + 2 * t * (mild - cold), mild + (2 * t - 1) * (hot - mild)))
    )


def _is_image(x: np.ndarray) -> bool:
    return x.ndim == 2 or (x.ndim == 3 and x.shape[0] in (1, 3))


def _png(values: np.ndarray) -> str:
    """A data URI of values in [0, 1], channels first."""
    from PIL import Image

    levels = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    pixels = levels if levels.ndim == 2 else levels[0] if levels.shape[0] == 1 else levels.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _as_bars(before: np.ndarray, after: np.ndarray, named: tuple[str, str, str]) -> tuple[Picture, ...]:
    change = after - before
    # Beyond 64 bars nothing can be read: show the features that changed most, in their order.
    kept = np.sort(np.argsort(-np.abs(change), kind="stable")[:_BARS])
    note = f" ({_BARS} most changed of {len(change)} features)" if len(change) > _BARS else ""
    low, high = min(0.0, before.min(), after.min()), max(0.0, before.max(), after.max())
    peak = float(np.abs(change).max())
    return (
        Picture(named[0] + note, bars=_path(before[kept], low, high)),
        Picture(named[1], bars=_path(after[kept], low, high)),
        Picture(named[2], bars=_path(change[kept], -peak, peak)),
    )


def _path(values: np.ndarray, low: float, high: float) -> str:
    """Bars from the zero line, in a box 100 wide and 60 high."""
    slot, height = 100 / len(values), 60 / (high - low or 1.0)
    zero = 60 + low * height
    steps = [
        f"M{slot * (at + 0.1):.2f} {zero:.2f}h{0.8 * slot:.2f}v{-height * value:.2f}h{-0.8 * slot:.2f}z"
        for at, value in enumerate(values.tolist())
    ]
    return "".join(steps)

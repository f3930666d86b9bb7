"""The interactive page of the SVM path: choose a pair, drag λ, watch the boundary tilt. One file, no network."""

from __future__ import annotations

import base64
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calipers.geometry import Hyperplane, tilting_plane

__all__ = ["Frame", "frame", "page"]

Floats = NDArray[np.float64]
_SHOWN = 250  # Points of each class in the tilting plane.


@dataclass(frozen=True)
class Frame:
    """What the page shows for one pair and one λ; every field is ready for JSON."""

    numbers: dict[str, float]
    edges: list[float]
    counts: list[list[int]]
    points: list[list[float]]
    boundary: list[float]
    pictures: list[str]


def frame(plane: Hyperplane, x: Floats, y: Floats, numbers: Mapping[str, float]) -> Frame:
    """Histogram of y·d(x), the data in the tilting plane, the weights, two images and their mirror images.

    Arguments:
        plane: the model. x, y: square images as rows (n, d), labels ±1, class −1 first. numbers: what to print.

    Example:
        >>> made = frame(Hyperplane([1.0, 0, 0, 0], -0.5), np.eye(4)[[1, 0]], np.array([-1.0, 1.0]), {})
        >>> len(made.pictures), made.points[0]
        (5, [-0.7071, 0.7071])
    """
    signed = y * plane.distance(x)
    edges = np.linspace(signed.min(), signed.max() + 1e-9, 41)
    counts = [np.histogram(signed[y == side], edges)[0].tolist() for side in (-1, 1)]
    flat = tilting_plane(plane, x, y)
    chosen = np.concatenate([np.flatnonzero(y == side)[:_SHOWN] for side in (-1, 1)])
    first = x[[np.flatnonzero(y == side)[0] for side in (-1, 1)]]
    weights = 0.5 + plane.weight / (2 * np.abs(plane.weight).max())
    mirrors = plane.mirror(first)
    images = [weights, first[0], mirrors[0], first[1], mirrors[1]]
    return Frame(
        {key: float(f"{value:.5g}") for key, value in numbers.items()},
        edges.round(3).tolist(), counts, flat.project(x[chosen]).round(4).tolist(), list(flat.boundary),
        [base64.b64encode((image.clip(0, 1) * 255).round().astype(np.uint8).tobytes()).decode() for image in images],
    )  # fmt: skip


def page(frames: Mapping[tuple[int, int], Sequence[Frame]]) -> bytes:
    """The page as bytes: the frames as JSON inside, drawn on canvases by a short script.

    Example:
        >>> page({})[:15]
        b'<!doctype html>'
    """
    told = {f"{a} vs {b}": [vars(one) for one in some] for (a, b), some in frames.items()}
    template = (importlib.resources.files("calipers.papers") / "tilting_page.html").read_text(encoding="utf-8")
    return template.replace("/*FRAMES*/", json.dumps(told, separators=(",", ":"))).encode()

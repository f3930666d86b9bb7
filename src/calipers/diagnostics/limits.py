"""Checks against what is true of any classifier: noise is weak, everything can be broken, some claims cannot be."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor

from calipers.attacks import pgd
from calipers.diagnostics.battery import TRIED, Evidence, Finding, check, verdict
from calipers.errors import BadInput
from calipers.records import status
from calipers.threats import Threat, distance


@check(
    "random-noise-is-weaker",
    "Do the attacks break everything that random noise of the same size breaks?",
    "The gradients are masked or the attack stops early: the audit also searched without gradients.",
)
def noise_is_weaker(e: Evidence) -> Finding:
    """What noise broke of what every attack had left open."""
    if not e.threat.ladder:
        return "not applicable", "no radius was asked for"
    lower, upper = e.rows["lower"].to_numpy(), e.rows["upper"].to_numpy()
    right = (e.rows["predicted"] == e.rows["label"]).to_numpy()
    by_noise = int((right & (e.rows["attack"] == "noise").to_numpy()).sum())
    left = by_noise + sum(int((status(lower[right], upper[right], eps) == "open").sum()) for eps in e.threat.ladder)
    if not left:
        return "passed", "the attacks and certificates left no example open for noise to try"
    return verdict(by_noise == 0), f"noise alone broke {by_noise} of the {left} cases that the attacks had left open"


@check(
    "everything-can-be-broken",
    "Did the search for the smallest change find a witness for every input?",
    "Attacks that may change everything must succeed: the audit also searched without gradients.",
)
def broken_somewhere(e: Evidence) -> Finding:
    """Inputs without any witness, at whatever distance (Appendix C, 2 and 9)."""
    right = e.rows[e.rows["predicted"] == e.rows["label"]]
    if not len(right):
        return "not applicable", "no example is classified correctly"
    never = np.isinf(right["upper"].to_numpy())
    safe = never & np.isinf(right["lower"].to_numpy())
    words = f"{int(never.sum())} of {len(right)} inputs have no witness at any distance"
    return verdict(float((never & ~safe).mean()) <= 0.02), words


@check(
    "unbounded-attack-breaks-all",
    "Does an attack that may go anywhere in the box break everything?",
    "The gradient leads nowhere: the audit also took gradients past what stops them and searched without gradients.",
    depth="standard",
)
def unbounded(e: Evidence) -> Finding:
    """PGD with eps as large as the box (Appendix C, 2)."""
    right = e.right[: TRIED[e.depth]]
    if not e.model.box.bounded or not len(right) or not e.is_function:
        reason = "the box is infinite" if not e.model.box.bounded else "no input has an answer of its own that is right"
        return "not applicable", reason
    whole = Threat(e.threat.norm, e.model.box.reach(e.threat.norm, e.x[0].numel()))
    try:
        found = pgd(e.model, e.x[right], e.y[right], whole, seed=e.seed)
    except BadInput as refusal:
        return "not applicable", str(refusal)
    broken = int(found.success.sum())
    # One survivor in ten may have begun where the gradient is flat.
    words = f"PGD broke {broken} of {len(right)} inputs at eps {whole.ladder[-1]:g}, as large as the box"
    return verdict(len(right) - broken <= max(1, len(right) // 10)), words


@check(
    "no-more-than-possible",
    "Could any classifier be as robust as the attacks say?",
    "Inputs of different classes share points within eps, where one of them must be wrong: the attacks missed them.",
)
def possible(e: Evidence) -> Finding:
    """Two inputs of different classes at most 2·eps apart cannot both be robust, whatever the classifier."""
    if not e.threat.ladder or e.threat.norm == "l0":
        return "not applicable", "no radius was asked for" if not e.threat.ladder else "L0 balls have other midpoints"
    upper, words, fine = e.rows["upper"].to_numpy()[: e.sample], "", True
    for eps in e.threat.ladder:
        most = _ceiling(e.some, e.y[: e.sample], e.threat, eps, e)
        held = int((upper > eps).sum())
        fine &= held <= most
        words = f"at eps {eps:g} {held} of {len(upper)} are not broken, and no classifier can hold more than {most}"
    return verdict(fine), words


def _ceiling(x: Tensor, y: Tensor, threat: Threat, eps: float, e: Evidence) -> int:
    """How many inputs any classifier can hold at eps, at most: by pairs that conflict, and by the middle of the box."""
    # The witness of a conflict is the midpoint, which lies in the box. In real arithmetic: distances are rounded up.
    pairs = torch.stack([distance(x, one.expand_as(x), threat.norm) for one in x]) <= 2 * eps * (1 + 1e-12)
    conflict = (pairs & (y[:, None] != y)).cpu().numpy()
    # Half a maximum matching of the double cover is the least fractional vertex cover: so many must fall.
    matched = int((maximum_bipartite_matching(csr_array(conflict)) >= 0).sum())
    by_pairs = len(x) - (matched + 1) // 2
    lo, hi = e.model.box.sides(x)
    if not e.model.box.bounded:
        return by_pairs
    middle = ((lo + hi) / 2).expand_as(x)
    share = distance(x, middle, threat.norm) <= eps * (1 + 1e-12)
    counts = torch.bincount(y[share])
    by_middle = len(x) - int(share.sum()) + (int(counts.max()) if len(counts) else 0)
    return min(by_pairs, by_middle)

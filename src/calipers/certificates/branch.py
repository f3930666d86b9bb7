"""Branch and bound: the label is proved case by case, where one bound for all cases is too loose."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from calipers.certificates.activations import Activation
from calipers.certificates.arithmetic import ASSUMES, OURS, Arithmetic, arithmetic_of
from calipers.certificates.cases import Cases, Climb, Watched
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.crown import Bounds, carry_back, crown, label_rows, memory_of
from calipers.certificates.domain import Domain
from calipers.certificates.graph import Graph, Interval
from calipers.certificates.reading import read
from calipers.certificates.relaxations import Band, Lines, tangents
from calipers.models import Classifier, public
from calipers.threats import Box, Norm, distance

__all__ = ["branch"]

# So few cases get the intervals of all layers anew: 8 proved most in equal time on 784-64-64-10, among 0, 8, 32, 128.
_FEW = 8


@public
def branch(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    norm: Norm,
    *,
    upper: Tensor,
    lower: Tensor | None = None,
    seconds: float = math.inf,
    cases: int = 20_000,
    memory: float = 2**31,
) -> Certified:
    r"""The largest radius proved by branch and bound within a time budget, for the model as executed.

    At a radius, z_y − z_j > 0 is to be shown for every j ≠ y. Where CROWN's bound does not, an activation's interval is
    cut in two (at its kink, or in the middle) and each case is bounded anew: the slopes α of the lower lines and the
    multipliers β ≥ 0 of what the case assumes are ascended with Adam. Every bound on the way is a proof, so stopping
    at any time is sound. The radius is bisected between CROWN's and the attack's.

    Arguments:
        model: a network of known operators.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        upper: an attack's distances, shape (N,): nothing beyond them is tried. Examples with an infinite one get
            CROWN's radius.
        lower: radii already proved for this model, box and norm, shape (N,); CROWN's unless given.
        seconds: for each example, besides CROWN.
        cases: bounded for each example at most; unlike seconds, they give the same radius every time.
        memory: bytes that the coefficients of a layer may take.

    Raises:
        NotApplicable: for L0, for too little memory, and (UnknownOperator) for an operator without a rule.

    Source: "Beta-CROWN: Efficient Bound Propagation with Per-neuron Split Constraints for Neural Network Robustness
    Verification" (Wang et al. 2021), equation (8) and Theorem 3.2; cuts of smooth functions and rounding are ours.

    Example:
        >>> from calipers.models import references
        >>> ball = next(r for r in references() if r.classifier.name == "linf-ball")
        >>> exact = ball.radius["linf"]
        >>> (branch(ball.classifier, ball.x, ball.y, "linf", upper=exact).radius / exact > 0.98).all()
        tensor(True)
    """
    if norm == "l0":
        raise NotApplicable("norm of branch and bound", expected="linf, l2 or l1", got="'l0'")
    x, y = model.check(x, y)
    graph, arithmetic = read(model), arithmetic_of(model)
    need = memory_of(graph)
    if need > memory:
        raise NotApplicable("memory of branch and bound", expected=f"at most {memory / 1e9:.2g} GB for each example",
                            got=f"{need / 1e9:.2g} GB", hint="CROWN's bounds stand instead")  # fmt: skip
    high = upper.to(x.device).double()
    # All cases are to be proved in the end: their order matters little, and many at once are cheap.
    batch = max(1, min(256, int(memory / need))) if need else 256
    radius = crown(model, x, y, norm, upper=upper).radius if lower is None else lower.to(x.device).double().clone()
    for i in range(len(x)):
        if 0 < radius[i] < high[i] < torch.inf:
            problem = _Problem(graph, x[i : i + 1].double(), y[i : i + 1], norm, model.box, arithmetic, batch)
            radius[i] = _bisect(problem, float(radius[i]), float(high[i]), _Effort(time.monotonic() + seconds, cases))
    return Certified(radius, norm, "branch", arithmetic.name, ASSUMES, model.box)


@dataclass
class _Effort:
    """What may still be spent: time until ``deadline``, and cases."""

    deadline: float
    cases: int

    @property
    def spent(self) -> bool:
        return self.cases <= 0 or time.monotonic() > self.deadline

    def part(self, of: int) -> _Effort:
        """One of so many equal parts of what is left."""
        left = self.deadline - time.monotonic()
        return _Effort(time.monotonic() + left / of, self.cases // of)


def _bisect(problem: _Problem, low: float, high: float, effort: _Effort) -> float:
    """The largest radius proved with this effort, up to 0.99 of ``high``."""
    top = high
    while low < 0.99 * top and high - low > 1e-3 * high and not effort.spent:
        # The cost grows severalfold with every step, so go up: what fails has cost more than all before it. Where the
        # attack is nearly exact, the last step ends just below it.
        goal = max(0.985 * top, (low + top) / 2) if high == top else high
        guess = goal if goal - low < 0.05 * top and high == top else low + 0.7 * (goal - low)
        share = effort.part(2)
        given = share.cases
        proved = problem.proved(guess, share)
        effort.cases -= max(given - share.cases, 1)
        low, high = (guess, high) if proved else (low, guess)
        if problem.refuted < top:
            # Nearer than the attack: what is there to be proved ends here.
            top = max(low, problem.refuted)
            high = min(high, top)
    return low


class _Problem:
    """One example, and whether its label is proved at a radius."""

    def __init__(
        self, graph: Graph, x: Tensor, y: Tensor, norm: Norm, box: Box, arithmetic: Arithmetic, batch: int
    ) -> None:
        self.graph, self.x, self.norm, self.box, self.arithmetic, self.batch = graph, x, norm, box, arithmetic, batch
        self.seeds = label_rows(y, graph.shape_of(graph.last)[0])[0]
        # The activations that can be cut, by node: what they read, and what they are.
        self.sites = {at: (node.inputs[0], node.op) for at, node in graph if isinstance(node.op, Activation)}
        # The least distance at which a wrong answer was met on the way.
        self.refuted = math.inf

    def proved(self, radius: float, effort: _Effort) -> bool:
        """Whether every margin is positive within this radius; False also where the effort is spent or one is not."""
        self.domain = Domain(self.x, self.x.new_full((1,), radius), self.norm, self.box)
        self.root = Bounds(self.graph, self.domain, self.arithmetic)
        rows = (~(self.root.margins(self.seeds[None])[0] > 0)).nonzero()[:, 0]
        if not len(rows):
            return True
        self._sharpen()
        cases = self._first(self.seeds[rows])
        value = self._ascend(cases, steps=20)
        cases, value = self._still(cases, value)
        stuck = 0
        while len(cases.goal):
            order = value.argsort()
            worst, rest = order[: self.batch], order[self.batch :]
            children = self._split(cases.take(worst))
            if effort.spent or stuck > 6 or self.refuted <= radius:
                return False
            # Cases without anything left to cut are ascended a few times more, then given up.
            stuck = stuck + 1 if len(children.goal) == len(worst) else 0
            if len(children.goal) <= _FEW:
                # What is learnt here every later case inherits; for many cases it would take most of the time.
                self._refresh(children)
            found = self._ascend(children, steps=5)
            effort.cases -= len(children.goal)
            children, found = self._still(children, found)
            cases, value = cases.take(rest).join(children), torch.cat([value[rest], found])
        return True

    def _sharpen(self) -> None:
        """Ascend α for the root's intervals too, one activation input after the other."""
        for source, rows in self._unsettled(self.root.intervals):
            eye = torch.eye(self.root.intervals[source][0][0].numel(), dtype=torch.float64, device=self.x.device)[rows]
            cases = self._first(torch.cat([eye, -eye]).view(-1, *self.graph.shape_of(source)))
            least = self._ascend(cases, steps=12, at=source, enough=torch.inf)
            lo, hi = (b.flatten(1).clone() for b in self.root.intervals[source])
            lo[0, rows] = torch.maximum(lo[0, rows], least[: len(rows)])
            hi[0, rows] = torch.minimum(hi[0, rows], -least[len(rows) :])
            shape = self.graph.shape_of(source)
            self.root.take(source, (lo.view(1, *shape), hi.view(1, *shape)))

    def _unsettled(self, intervals: Mapping[int, Interval]) -> Iterator[tuple[int, Tensor]]:
        """Inputs of activations beyond the first, with the coordinates whose intervals matter."""
        for depth, (source, op) in enumerate(self.sites.values()):
            lo, hi = intervals[source]
            matters = (lo < 0) & (hi > 0) if op.kink is not None else torch.ones_like(lo, dtype=torch.bool)
            rows = matters.flatten(1).any(0).nonzero()[:, 0]
            if depth and len(rows):
                yield source, rows

    def _refresh(self, cases: Cases) -> None:
        """Bound the inputs of later activations anew under the cuts of each case."""
        n = len(cases.goal)
        for at, (source, _) in list(self.sites.items())[1:]:
            lo, hi = cases.lo[at].flatten(1).clone(), cases.hi[at].flatten(1).clone()
            rows = ((lo < 0) & (hi > 0)).any(0).nonzero()[:, 0]
            if not len(rows):
                continue
            eye = torch.eye(lo.shape[1], dtype=torch.float64, device=lo.device)[rows]
            goals = torch.cat([eye, -eye]).view(-1, *self.graph.shape_of(source))
            each = cases.take(torch.arange(n, device=lo.device).repeat_interleave(len(goals)))
            each.goal, each.alpha = goals.repeat(n, *[1] * (goals.dim() - 1)), self._adaptive(each)
            with torch.no_grad():
                least = self._bound(each, source)[0].view(n, 2, len(rows))
            lo[:, rows] = torch.maximum(lo[:, rows], least[:, 0])
            hi[:, rows] = torch.minimum(hi[:, rows], -least[:, 1])
            cases.lo[at], cases.hi[at] = lo.view_as(cases.lo[at]), hi.view_as(cases.hi[at])

    def _adaptive(self, cases: Cases) -> dict[int, Tensor]:
        return {at: tangents(self.sites[at][1], cases.lo[at], cases.hi[at]).low for at in cases.alpha}

    def _first(self, goals: Tensor) -> Cases:
        n = len(goals)
        lo, hi, alpha = {}, {}, {}
        for at, (source, op) in self.sites.items():
            lo[at], hi[at] = (b.expand(n, *b.shape[1:]) for b in self.root.intervals[source])
            if op.kink is not None:
                alpha[at] = tangents(op, lo[at], hi[at]).low

        def nothing(kind: torch.dtype) -> dict[int, Tensor]:
            return {at: torch.zeros_like(t, dtype=kind) for at, t in lo.items()}

        uncut = nothing(torch.bool), nothing(torch.bool)
        return Cases(goals, lo, hi, *uncut, alpha, nothing(torch.float64), nothing(torch.float64))

    @staticmethod
    def _still(cases: Cases, value: Tensor) -> tuple[Cases, Tensor]:
        left = (~(value > 0)).nonzero()[:, 0]
        return cases.take(left), value[left]

    def _bound(self, cases: Cases, at_node: int | None = None) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        r"""Lower bounds of the margins (B,), what the lines of every site may lose (B, \*shape), and coefficients."""
        lines: dict[int, Lines] = dict(self.root.lines)
        pull: dict[int, tuple[Tensor, Tensor]] = {}
        watched: dict[int, Watched] = {}
        for at, (source, op) in self.sites.items():
            lo, hi = cases.lo[at], cases.hi[at]
            band = tangents(op, lo, hi)
            if op.kink is not None:
                crossing = (lo < 0) & (hi > 0)
                band = Band(torch.where(crossing, cases.alpha[at], band.low), None, band.high, band.over)
            lines[at] = watched[at] = Watched(band, lo, hi, op.kink is not None)
            below = cases.beta_lo[at] * cases.cut_lo[at]
            above = cases.beta_hi[at] * cases.cut_hi[at]
            # What float64 can lose in these sums counts against the bound.
            lost = 8 * (lo[0].numel() + 8) * OURS * (below + above) * torch.maximum(lo.abs(), hi.abs())
            constant = (below * lo - above * hi - lost).flatten(1).sum(1)
            before = pull.get(source, (0.0, 0.0))
            pull[source] = before[0] + (above - below)[None], before[1] + constant[None]
        pull.pop(0, None)
        start = self.graph.last if at_node is None else at_node
        coefficients, constant = carry_back(self.graph, self.root.errors, lines, start, cases.goal[None], pull)
        value = (self.domain.lowest(coefficients) + constant)[0]
        return value, {at: w.loss for at, w in watched.items()}, coefficients

    def _ascend(self, cases: Cases, steps: int, at: int | None = None, enough: float = 0.0) -> Tensor:
        """The best bounds found (B,) by Adam on α in its range and β ≥ 0; the cases keep the last multipliers."""
        if not len(cases.goal):
            return self.x.new_zeros(0)
        groups = (cases.alpha, cases.beta_lo, cases.beta_hi)
        keys = [(group, site) for group in groups for site in group]
        climb = Climb([group[site] for group, site in keys])
        best = self.x.new_full((len(cases.goal),), -torch.inf)
        for step in range(steps):
            for (group, site), leaf in zip(keys, climb.leaves, strict=True):
                group[site] = leaf
            with torch.enable_grad():
                value, *_ = self._bound(cases, at)
            best = torch.maximum(best, value.detach())
            if step == steps - 1 or bool((best > enough).all()):
                break
            with torch.enable_grad():
                low = value.clamp_max(enough + 0.1).sum()
                grads = torch.autograd.grad(low, climb.leaves, allow_unused=True, materialize_grads=True)
            climb.step(grads)
            for (group, site), leaf in zip(keys, climb.leaves, strict=True):
                least = (self.sites[site][1].kink or 0.0) if group is cases.alpha else 0.0
                leaf.data.clamp_(least, 1.0 if group is cases.alpha else None)
        for (group, site), leaf in zip(keys, climb.leaves, strict=True):
            group[site] = leaf.detach()
        for site, lo in cases.lo.items():
            # Bounds that exclude each other: there is no such case.
            best = torch.where((lo > cases.hi[site]).flatten(1).any(1), torch.inf, best)
        return best

    def _look(self, z: Tensor) -> None:
        """Whether the network is wrong at one of these points (B, *shape): where the bounds are least."""
        wrong = (self.graph(z) @ self.seeds.T).amin(1) <= 0
        if bool(wrong.any()):
            # Rounded up a distance may pass the radius, which no point of the domain does.
            nearest = torch.minimum(distance(self.x, z[wrong], self.norm).amin(), self.domain.radius[0])
            self.refuted = min(self.refuted, float(nearest))

    def _split(self, cases: Cases) -> Cases:
        """Two cases of each: where the lines lose most, the interval is cut. Where they lose nothing, it stays one."""
        with torch.no_grad():
            _, losses, coefficients = self._bound(cases)
            self._look(self.domain.minimiser(coefficients)[0])
        flat = torch.cat([loss.flatten(1) for loss in losses.values()], 1)
        top, which = flat.max(1)
        whole, which = cases.take((top <= 0).nonzero()[:, 0]), which[top > 0]
        cases = cases.take((top > 0).nonzero()[:, 0])
        everyone = torch.arange(len(cases.goal))
        below, above = cases.take(everyone), cases.take(everyone)
        start = 0
        for at, (_, op) in self.sites.items():
            here, count = which - start, torch.Size(self.graph.shape_of(at)).numel()
            mine = ((here >= 0) & (here < count)).nonzero()[:, 0]
            start += count
            if not len(mine):
                continue
            k = here[mine]
            lo, hi = cases.lo[at].flatten(1)[mine, k], cases.hi[at].flatten(1)[mine, k]
            point = torch.zeros_like(lo) if op.kink is not None else (lo + hi) / 2
            for side, edge, cut in ((below, "hi", "cut_hi"), (above, "lo", "cut_lo")):
                for name, new in ((edge, point), (cut, torch.ones_like(mine, dtype=torch.bool))):
                    group = getattr(side, name)
                    changed = group[at].clone()
                    changed.view(len(changed), -1)[mine, k] = new
                    group[at] = changed
        return below.join(above).join(whole)

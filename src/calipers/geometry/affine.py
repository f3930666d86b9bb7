"""A hyperplane between two classes: distances, tilt, mirror images, and what scaling does to a loss.

Class I is y = −1 and class J is y = +1, as in the source; "positive" is J's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike

from calipers.certificates import NotApplicable, UnknownOperator, affine_form
from calipers.errors import BadInput, nearest
from calipers.geometry.labels import Floats, array, classifier, matrix, two_classes
from calipers.models import Classifier, from_sklearn

__all__ = ["Hyperplane", "LossName", "Plane", "Tilt", "nearest_centroid", "scaled_loss", "tilt", "tilting_plane"]

LossName = Literal["zero-one", "hinge", "softplus"]


@dataclass(frozen=True, eq=False)
class Hyperplane:
    """The score s(x) = w·x + b; its boundary is s = 0.

    Arguments:
        weight: w, shape (d,), finite and not zero.
        bias: b.

    Source: A New Angle on L2 Regularization (T. Tanay and L. Griffin, 2018).

    Raises:
        BadInput: for a weight that is zero, not finite, or not a vector.

    Example:
        >>> plane = Hyperplane([3.0, 4.0], -5.0)
        >>> plane.distance([[3.0, 4.0]]), plane.mirror([[3.0, 4.0]])
        (array([4.]), array([[-1.8, -2.4]]))
    """

    weight: Floats
    bias: float

    def __post_init__(self) -> None:
        weight, bias = array(self.weight, "weight"), array(self.bias, "bias")
        if weight.ndim != 1 or bias.ndim or not np.isfinite(weight).all() or not np.isfinite(bias):
            raise BadInput("hyperplane", expected="a finite weight vector and a finite bias",
                           got=f"weight of shape {weight.shape}, bias {self.bias}",
                           hint="of coef_ and intercept_ take row 0, or use Hyperplane.of(estimator)")  # fmt: skip
        if not weight.any():
            raise BadInput("hyperplane", expected="a weight that is not zero", got="all zeros: there is no boundary")
        with np.errstate(over="ignore", under="ignore"):
            if not 1e-150 < np.linalg.norm(weight) < 1e150:
                raise BadInput("hyperplane", expected="a weight from 1e-150 to 1e150", got="one that float64 loses")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", float(bias))

    @classmethod
    def of(cls, model: Classifier | object, classes: tuple[int, int] | None = None) -> Hyperplane:
        """The boundary between two classes of an affine model: any fitted scikit-learn linear estimator, with scalers.

        The layers are read, not tried out: a network that is affine only where it was looked at is refused.

        Arguments:
            model: a Classifier whose module is affine, or a fitted estimator.
            classes: (k, l), positions in ``classes_``: the score is z_l − z_k, positive where l is ahead of k. May be
                left out where there are two classes. An SVC of three or more votes over pairs and is not affine.

        Raises:
            BadInput: for a model that is not affine, or three or more classes and no choice of two.

        Example:
            >>> from sklearn.linear_model import LogisticRegression
            >>> fitted = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
            >>> plane = Hyperplane.of(fitted)
            >>> bool(np.allclose(plane.score([[0.5], [7.0]]), fitted.decision_function([[0.5], [7.0]])))
            True
        """
        known = classifier(model) if isinstance(model, Classifier | torch.nn.Module) else from_sklearn(model)
        if classes is None and known.classes != 2:
            raise BadInput(known.name, expected="two classes", got=known.classes,
                           hint="classes=(k, l) takes the boundary between two of them")  # fmt: skip
        k, l = classes or (0, 1)  # noqa: E741 - the source's letters
        if k == l or not {k, l} <= set(range(known.classes)):
            raise BadInput("classes", expected=f"two different ones of 0…{known.classes - 1}", got=f"{k} and {l}")
        try:
            weight, bias = (part.cpu().numpy() for part in affine_form(known))
        except UnknownOperator:
            raise BadInput(known.name, expected="an affine classifier", got="one that is not",
                           hint="local_linear gives the same numbers around one input") from None  # fmt: skip
        except NotApplicable:
            raise BadInput(known.name, expected="an affine classifier", got="one whose weights cannot be read",
                           hint="if it is affine, hand over Hyperplane(weight, bias)") from None  # fmt: skip
        return cls(weight[l] - weight[k], float(bias[l] - bias[k]))

    @property
    def norm(self) -> float:
        """‖w‖: the scale between score and distance."""
        return float(np.linalg.norm(self.weight))

    @property
    def unit(self) -> Floats:
        """ŵ = w / ‖w‖."""
        return self.weight / self.norm

    def score(self, x: ArrayLike) -> Floats:
        """s(x) = w·x + b = ‖w‖ d(x), shape (n,)."""
        scores: Floats = matrix(x, features=len(self.weight)) @ self.weight + self.bias
        return scores

    def distance(self, x: ArrayLike) -> Floats:
        """d(x) = ŵ·x + b/‖w‖: the signed Euclidean distance to the boundary, in the units of x, shape (n,)."""
        return self.score(x) / self.norm

    def project(self, x: ArrayLike) -> Floats:
        """x_p = x − d(x) ŵ: the nearest point of the boundary, shape (n, d)."""
        return matrix(x) - np.outer(self.distance(x), self.unit)

    def mirror(self, x: ArrayLike) -> Floats:
        """x_m = x − 2 d(x) ŵ: as far on the other side, with the opposite score, shape (n, d)."""
        return matrix(x) - 2 * np.outer(self.distance(x), self.unit)

    def error_distance(self, x: ArrayLike, y: ArrayLike) -> float:
        """d_err = 1/n Σ max(−y d(x), 0): by how much the examples are on the wrong side, on average."""
        rows, labels = two_classes(x, y)
        return float(np.maximum(-labels * self.distance(rows), 0).mean())

    def adversarial_distance(self, x: ArrayLike, y: ArrayLike, *, balanced: bool = False) -> float:
        """d_adv = 1/n Σ y d(x): how far the examples are from the boundary, on average.

        With n_I and n_J examples this is ŵ·(n_J j − n_I i)/n + (b/‖w‖)(n_J − n_I)/n: it depends on the bias unless the
        classes are balanced. ``balanced=True`` gives each class the weight ½; then it is ½‖j − i‖ cos θ for any sizes.
        """
        rows, labels = two_classes(x, y)
        distances = labels * self.distance(rows)
        if balanced:
            return float((distances[labels < 0].mean() + distances[labels > 0].mean()) / 2)
        return float(distances.mean())


def nearest_centroid(x: ArrayLike, y: ArrayLike) -> Hyperplane:
    """The classifier of the nearer centroid: w = j − i, through the middle of i and j.

    Raises:
        BadInput: one class only, NaN, or two classes with the same centroid.

    Example:
        >>> plane = nearest_centroid([[0.0, 0.0], [2.0, 0.0]], [-1, 1])
        >>> plane.unit.tolist(), plane.score([[1.0, 5.0]]).tolist()
        ([1.0, 0.0], [0.0])
    """
    rows, labels = two_classes(x, y)
    i, j = rows[labels < 0].mean(0), rows[labels > 0].mean(0)
    if np.linalg.norm(j - i) <= 1e-12 * np.abs(rows).max():
        raise BadInput("classes", expected="two different centroids", got="the same one twice: there is no angle to it")
    return Hyperplane(j - i, -float((j - i) @ ((i + j) / 2)))


@dataclass(frozen=True)
class Tilt:
    """How a hyperplane lies to its training data.

    Arguments:
        theta: the tilting angle between ŵ and ẑ, in radians, in [0, π].
        half: ½‖j − i‖, the adversarial distance of the nearest-centroid classifier.
        adversarial_distance, error_distance: d_adv and d_err, in the units of x.
        identity: ½‖j − i‖ cos θ. It equals d_adv if the classes are balanced, and the class-balanced d_adv always.
        error: the fraction of examples with y s(x) ≤ 0.
    """

    theta: float
    half: float
    adversarial_distance: float
    error_distance: float
    identity: float
    error: float


def tilt(plane: Hyperplane, x: ArrayLike, y: ArrayLike) -> Tilt:
    """The tilting angle, the two distances, and the identity d_adv = ½‖j − i‖ cos θ.

    An example on the boundary counts as an error, as in the source's set M.

    Arguments:
        plane: the classifier. x, y: data (n, d) with labels ±1.

    Example:
        >>> x, y = [[0.0, 0.0], [2.0, 0.0]], [-1, 1]
        >>> found = tilt(Hyperplane([1.0, 1.0], -1.0), x, y)
        >>> round(found.theta, 4), round(found.adversarial_distance, 4), round(found.identity, 4)
        (0.7854, 0.7071, 0.7071)
    """
    rows, labels = two_classes(x, y)
    signed, centroid = labels * plane.distance(rows), nearest_centroid(rows, labels)
    # Both sine and cosine: the arc cosine alone loses half of the digits near θ = 0.
    cosine = float(plane.unit @ centroid.unit)
    sine = float(np.linalg.norm(plane.unit - cosine * centroid.unit))
    return Tilt(
        float(np.arctan2(sine, cosine)), centroid.norm / 2, float(signed.mean()),
        float(np.maximum(-signed, 0).mean()), centroid.norm / 2 * cosine, float((signed <= 0).mean()),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plane:
    """The tilting plane: an orthonormal basis (ẑ, n̂); distances in it are distances between inputs.

    Arguments:
        z: ẑ, along the centroids, shape (d,).
        n: n̂, so that w lies in the plane, shape (d,).
        boundary: (w·ẑ, w·n̂, b): the boundary is where the three, times (u, v, 1), add up to 0.
    """

    z: Floats
    n: Floats
    boundary: tuple[float, float, float]

    def project(self, x: ArrayLike) -> Floats:
        """Coordinates (x·ẑ, x·n̂), shape (n, 2)."""
        projected: Floats = matrix(x) @ np.stack([self.z, self.n], 1)
        return projected


def tilting_plane(plane: Hyperplane, x: ArrayLike, y: ArrayLike) -> Plane:
    """Gram–Schmidt: ẑ from the centroids, n = w − (w·ẑ)ẑ, n̂ = n/‖n‖.

    A plane that is not tilted (w along ẑ) has no n̂ of its own; the coordinate axis along which the data vary most
    beside ẑ, made orthogonal, stands in, and the boundary is vertical.

    Raises:
        BadInput: for fewer than two features.

    Example:
        >>> found = tilting_plane(Hyperplane([1.0, 2.0, 0.0], 0.0), [[-1.0, 0, 0], [1.0, 0, 0]], [-1, 1])
        >>> found.n.tolist(), found.project([[3.0, 4.0, 5.0]]).tolist()
        ([0.0, 1.0, 0.0], [[3.0, 4.0]])
    """
    rows = matrix(x, features=len(plane.weight))
    z = nearest_centroid(rows, y).unit
    if len(z) < 2:
        raise BadInput("tilting plane", expected="two features or more", got=len(z))
    w = plane.unit
    n = w - (w @ z) * z
    if np.linalg.norm(n) <= 1e-9:
        beside = (rows - np.outer(rows @ z, z)).var(0)
        n = np.eye(len(z))[beside.argmax() if beside.any() else np.abs(z).argmin()]
    for _ in range(2):  # Twice is enough: one pass leaves a rest where w is nearly along ẑ.
        n = n - (n @ z) * z
        n = n / np.linalg.norm(n)
    return Plane(z, n, (float(plane.weight @ z), float(plane.weight @ n), plane.bias))


def scaled_loss(loss: LossName, z: ArrayLike, scale: float = 1.0) -> Floats:
    """f_‖w‖(z) = f(‖w‖ z), of z = y d(x): 0-1 is 1 for z ≤ 0; hinge max(0, 1 − z); softplus ln(1 + e^(−z)).

    Two limits, which the tests hold: f_‖w‖(z)/‖w‖ → max(−z, 0) for ‖w‖ → ∞, so that the mean tends to d_err; and
    (α − f_‖w‖(z))/‖w‖ → βz for ‖w‖ → 0, so that it tends to β d_adv, with (α, β) = (1, 1) for the hinge and
    (ln 2, ½) for softplus. The 0-1 loss does not depend on the scale and has neither limit.

    Arguments:
        loss: ``"zero-one"``, ``"hinge"`` or ``"softplus"``. z: y d(x), any shape. scale: ‖w‖ > 0.

    Raises:
        BadInput: for an unknown loss or a scale that is not positive.

    Example:
        >>> scaled_loss("hinge", [-1.0, 0.25, 2.0], 2.0).tolist()
        [3.0, 0.5, 0.0]
    """
    if loss not in get_args(LossName):
        raise BadInput("loss", got=repr(loss), hint=nearest(str(loss), get_args(LossName)))
    if not 0 < array(scale, "scale") < np.inf:
        raise BadInput("scale", expected="a finite number > 0", got=scale)
    scaled = scale * array(z, "z")
    if np.isnan(scaled).any():
        raise BadInput("z", expected="numbers", got="NaN")
    if loss == "zero-one":
        return (scaled <= 0).astype(np.float64)
    losses: Floats = np.maximum(1 - scaled, 0) if loss == "hinge" else np.logaddexp(0, -scaled)
    return losses

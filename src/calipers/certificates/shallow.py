"""What is known of models that are no networks: trees, one nearest neighbour, Gaussian kernels, votes of pairs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from calipers.certificates.alone import parts_of
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.kernel import kernel
from calipers.certificates.nearest import nearest
from calipers.certificates.pairs import pairs
from calipers.certificates.trees import trees
from calipers.models import Classifier, NearestNeighbour, OneVsOne, RbfScores, Trees, public
from calipers.threats import Norm

__all__ = ["shallow"]

_KINDS: dict[type[nn.Module], Callable[..., Certified]] = {
    Trees: trees,
    NearestNeighbour: nearest,
    RbfScores: kernel,
    OneVsOne: pairs,
}


@public
def shallow(model: Classifier, x: Tensor, y: Tensor, norm: Norm) -> Certified:
    r"""The certificate that belongs to the model: :func:`trees`, :func:`nearest`, :func:`kernel` or :func:`pairs`.

    Arguments:
        model: what a scikit-learn tree, forest, KNeighborsClassifier(1) or SVC becomes.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: L0 is known for trees and pairs only.

    Raises:
        NotApplicable: for any other model.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> model = Classifier.of(NearestNeighbour(points, torch.tensor([0, 1])), shape=(1,))
        >>> shallow(model, points[:1], torch.tensor([0]), "linf").by
        'nearest'
    """
    kinds = [type(part) for part in parts_of(model)]
    found = next((kind for kind in kinds if kind in _KINDS), kinds[0])
    if found not in _KINDS:
        known = "trees, one nearest neighbour, a Gaussian kernel machine or votes of pairs of classes"
        raise NotApplicable("shallow certificate", expected=known, got=found.__name__)
    return _KINDS[found](model, x, y, norm)

"""What is known of models that are no networks: trees, one nearest neighbour, Gaussian kernel machines."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from calipers.certificates.alone import parts_of
from calipers.certificates.certificate import Certified, NotApplicable
from calipers.certificates.kernel import kernel
from calipers.certificates.nearest import nearest
from calipers.certificates.trees import trees
from calipers.models import Classifier, NearestNeighbour, RbfScores, Trees, public
from calipers.threats import Norm

__all__ = ["shallow"]

_KINDS: dict[type[nn.Module], Callable[..., Certified]] = {
    Trees: trees,
    NearestNeighbour: nearest,
    RbfScores: kernel,
}


@public
def shallow(model: Classifier, x: Tensor, y: Tensor, norm: Norm) -> Certified:
    r"""The certificate that belongs to the model: :func:`trees`, :func:`nearest` or :func:`kernel`.

    Arguments:
        model: what a scikit-learn tree, forest, KNeighborsClassifier(1) or SVC(kernel="rbf") becomes.
        x: inputs in the box, shape (N, \*shape).
        y: labels, shape (N,).
        norm: L0 is known for trees only.

    Raises:
        NotApplicable: for any other model.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> model = Classifier.of(NearestNeighbour(points, torch.tensor([0, 1])), shape=(1,))
        >>> shallow(model, points[:1], torch.tensor([0]), "linf").by
        'nearest'
    """
    first = type(parts_of(model)[0])
    if first not in _KINDS:
        known = "trees, one nearest neighbour or a Gaussian kernel machine"
        raise NotApplicable("shallow certificate", expected=known, got=first.__name__)
    return _KINDS[first](model, x, y, norm)

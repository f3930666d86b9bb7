"""The fingerprint of a classifier: what was audited, down to the last bit."""

from __future__ import annotations

import hashlib
from itertools import chain

import torch

from calipers.models.classifier import Classifier

__all__ = ["digest"]


def digest(classifier: Classifier) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of parameters and buffers, and the structure of the module.

    Equal digests mean equal weights in an equally printed module; code inside a module's ``forward`` is not seen.

    Example:
        >>> from calipers.models import linear
        >>> one, two = (Classifier.of(linear(w * torch.eye(2), torch.zeros(2)), shape=(2,)) for w in (1, 2))
        >>> len(digest(one)), digest(one) == digest(one), digest(one) == digest(two)
        (64, True, False)
    """
    module = classifier.module
    sha = hashlib.sha256(repr(module).encode())
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()

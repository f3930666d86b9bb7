"""On what: labelled examples that know their box, class names, shape and provenance. Start at ``load``."""

from calipers.data.checksums import State, Verified, available, verify
from calipers.data.dataset import DataSet, digest
from calipers.data.download import Progress, fetch
from calipers.data.folder import from_folder
from calipers.data.formats import parse_cifar, parse_idx
from calipers.data.loading import load, plugins
from calipers.data.npz import from_npz
from calipers.data.official import OFFICIAL, OfficialFile, OfficialSet, home
from calipers.data.synthetic import synthetic

__all__ = [
    "OFFICIAL",
    "DataSet",
    "OfficialFile",
    "OfficialSet",
    "Progress",
    "State",
    "Verified",
    "available",
    "digest",
    "fetch",
    "from_folder",
    "from_npz",
    "home",
    "load",
    "parse_cifar",
    "parse_idx",
    "plugins",
    "synthetic",
    "verify",
]

"""What is attacked: classifiers, how they are made and loaded, and references whose truth is known."""

from calipers.models.classifier import Classifier, ModelInTrainMode, as_they_were, left_in_train_mode
from calipers.models.digest import digest
from calipers.models.factory import made_by, plugins
from calipers.models.layers import Normalize, OneVsOne, linear
from calipers.models.loading import load
from calipers.models.reference import Reference, references
from calipers.models.shallow import NearestNeighbour, RbfScores, Trees
from calipers.models.sklearn import from_sklearn
from calipers.models.zoo import ARCHITECTURES, TRAINED, Architecture, Recipe, trained

__all__ = [
    "ARCHITECTURES",
    "TRAINED",
    "Architecture",
    "Classifier",
    "ModelInTrainMode",
    "NearestNeighbour",
    "Normalize",
    "OneVsOne",
    "RbfScores",
    "Recipe",
    "Reference",
    "Trees",
    "as_they_were",
    "digest",
    "from_sklearn",
    "left_in_train_mode",
    "linear",
    "load",
    "made_by",
    "plugins",
    "references",
    "trained",
]

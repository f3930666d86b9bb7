"""What is attacked: classifiers, how they are made and loaded, and references whose truth is known."""

from calipers.models.architectures import ARCHITECTURES, Architecture
from calipers.models.classifier import Classifier, ModelInTrainMode, as_they_were, left_in_train_mode
from calipers.models.digest import digest
from calipers.models.edge import public, understood
from calipers.models.factory import made_by, plugins
from calipers.models.faster import faster
from calipers.models.layers import Normalize, OneVsOne, linear, two_classes
from calipers.models.loading import load
from calipers.models.reference import Reference, references
from calipers.models.shallow import NearestNeighbour, RbfScores, Trees
from calipers.models.sklearn import from_sklearn
from calipers.models.surrogates import Alone, Expected, StraightThrough
from calipers.models.zoo import TRAINED, Recipe, trained

__all__ = [
    "ARCHITECTURES",
    "TRAINED",
    "Alone",
    "Architecture",
    "Classifier",
    "Expected",
    "ModelInTrainMode",
    "NearestNeighbour",
    "Normalize",
    "OneVsOne",
    "RbfScores",
    "Recipe",
    "Reference",
    "StraightThrough",
    "Trees",
    "as_they_were",
    "digest",
    "faster",
    "from_sklearn",
    "left_in_train_mode",
    "linear",
    "load",
    "made_by",
    "plugins",
    "public",
    "references",
    "trained",
    "two_classes",
    "understood",
]

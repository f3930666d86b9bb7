from calipers.models.classifier import Classifier, ModelInTrainMode, as_they_were

__all__ = ["Classifier", "ModelInTrainMode", "as_they_were"]

from calipers.data.dataset import DataSet

__all__ = ["DataSet"]

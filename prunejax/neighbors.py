"""Public names of room `measures`: nearest-neighbour probes."""

from prunejax.measures.neighbors import knn_predict, knn_purity, prediction_depth

__all__ = ["knn_predict", "knn_purity", "prediction_depth"]

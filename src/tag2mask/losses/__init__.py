"""The training losses, as pure functions of tensors. Equations are those of Liu et al. 2023 (PLoS ONE 18(11)).

All sums, exponentials and logarithms are taken in float32, whatever the precision of the network.
"""

from tag2mask.losses.affinity import affinity_loss
from tag2mask.losses.classification import classification_loss
from tag2mask.losses.contrast import (
    SIMILARITY_BOUND,
    background_vectors,
    class_contrast,
    cosine_similarity,
    cross_image_contrast,
    foreground_vectors,
    mean_similarity,
    rank_weights,
    repulsion,
    shows_class,
)
from tag2mask.losses.equivariance import equivariance_loss, scaled
from tag2mask.losses.segmentation import segmentation_loss
from tag2mask.losses.two_step import ramp

__all__ = [
    "SIMILARITY_BOUND",
    "affinity_loss",
    "background_vectors",
    "class_contrast",
    "classification_loss",
    "cosine_similarity",
    "cross_image_contrast",
    "equivariance_loss",
    "foreground_vectors",
    "mean_similarity",
    "ramp",
    "rank_weights",
    "repulsion",
    "scaled",
    "segmentation_loss",
    "shows_class",
]

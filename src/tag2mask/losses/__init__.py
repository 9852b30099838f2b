"""The training losses, as pure functions of tensors. Equations are those of Liu et al. 2023 (PLoS ONE 18(11)).

All sums, exponentials and logarithms are taken in float32, whatever the precision of the network.
"""

from tag2mask.losses.affinity import affinity_loss
from tag2mask.losses.contrast import (
    SIMILARITY_BOUND,
    background_vectors,
    class_contrast,
    cosine_similarity,
    cross_image_contrast,
    cross_image_foreground_contrast,
    foreground_vectors,
    mean_similarity,
    repulsion,
    shows_class,
    sigmoid_weights,
)
from tag2mask.losses.pixels import (
    CollisionCrossEntropy,
    CrossEntropy,
    PixelLoss,
    SoftCrossEntropy,
    collision_cross_entropy,
    pairwise_loss,
    segmentation_loss,
    soft_cross_entropy,
    soft_label,
)
from tag2mask.losses.two_step import (
    classification_loss,
    correlation_loss,
    equivariance_loss,
    found_tags,
    ramp,
    two_step_loss,
)

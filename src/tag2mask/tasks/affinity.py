"""Training of the edge network whose boundaries steer the random walk (IRN, as Puzzle-CAM uses it)."""

from typing import Any

from torch import Tensor

from tag2mask import losses
from tag2mask.models.backbones import Backbone
from tag2mask.models.edges import EdgeNet, at_edge_map
from tag2mask.models.paths import pair_affinity, pair_labels
from tag2mask.tasks.base import NetworkTask
from tag2mask.tasks.optim import SGD


class AffinityTask(NetworkTask):
    """Learn boundaries from confident labels: within a radius, positions of one label have no edge between them.

    Trains on label PNGs (``data.labels``) with ``IGNORE`` where they are undecided, made by `tag2mask labels` with
    `refine.recipes.ConfidentSeeds`. Only the edge branch learns; the backbone keeps its pretrained weights.
    """

    kind = "affinity"

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] = (),
        backbone: Backbone = Backbone(),
        radius: int = 10,
        optimizer: SGD = SGD(),
    ) -> None:
        """Build the network with random weights; pretrained ones are filled in when training starts.

        Args:
            num_classes: foreground classes. From the command line it comes from the data.
            class_names: their names, likewise; saved with the network.
            backbone: feature extractor and its weights.
            radius: of the pairs that are compared, in positions of the edge map (a quarter of the crop).
            optimizer: learning rates and their decay; all that learns is new, so its ``new_factor`` multiplies ``lr``.
        """
        super().__init__(num_classes, class_names)
        self.save_hyperparameters(logger=False)
        self.radius, self.optimizer = radius, optimizer
        self.net = EdgeNet(backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Return edge scores before the sigmoid, (B, H / 4, W / 4)."""
        edge: Tensor = self.net(images)
        return edge

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the affinity loss and log its terms."""
        self.require_labels(batch)
        edge = self(batch["image"]).float().sigmoid()
        pairs = pair_labels(at_edge_map(batch["mask"]), self.radius)
        terms = losses.affinity_loss(pair_affinity(edge, self.radius), *pairs, counted=self.mean_over_ranks)
        return self.logged(terms.pop("loss"), {**terms, "edge": edge.mean()}, batch)

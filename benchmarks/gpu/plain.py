"""A plain PyTorch loop of Puzzle-CAM's form (https://arxiv.org/abs/2101.11253), to compare ours with.

Written here from the paper's description and its reported settings, with torchvision's ResNet: no Lightning, no timm,
and nothing of `tag2mask`. Each step runs the crop and its four tiles through the network: two multi-label losses, and
an L1 term between the maps of both, of the tagged classes. SGD has a group for weights, for biases and for the
classifier, and a polynomial decay.

Shape letters in this file: B crops, C classes, H x W a crop, h x w its map.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

BETA, LR, MOMENTUM, DECAY, POWER, NEW, BIAS = 2.0, 0.01, 0.9, 1e-4, 0.9, 10.0, 2.0
"""Weight of the L1 term; SGD: Puzzle-CAM's but for the learning rate and a true momentum, as tag2mask's defaults."""


class PlainNet(nn.Module):
    """torchvision's ResNet at output stride 16, undilated, with a 1 x 1 classifier without bias."""

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        net = torchvision.models.get_model(name, weights=None)
        for layer in net.layer4[0].modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
        self.classifier = nn.Conv2d(net.fc.in_features, num_classes, 1, bias=False)
        net.fc = nn.Identity()
        self.backbone = net

    def forward(self, images: Tensor) -> Tensor:
        """Return maps (B, C, h, w) of images (B, 3, H, W)."""
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        maps: Tensor = self.classifier(net.layer4(net.layer3(net.layer2(net.layer1(x)))))
        return maps


def puzzle_loss(net: nn.Module, images: Tensor, label: Tensor) -> Tensor:
    """Return the loss of crops (B, 3, H, W), of even sides, with tags (B, C) of 0 and 1."""
    h, w = images.shape[2] // 2, images.shape[3] // 2
    whole = net(images).float()
    tiles = net(torch.cat([images[..., rows, columns] for rows in _halves(h) for columns in _halves(w)])).float()
    top_left, top_right, low_left, low_right = tiles.chunk(4)
    merged = torch.cat([torch.cat([top_left, top_right], 3), torch.cat([low_left, low_right], 3)], 2)
    tagging = sum(F.multilabel_soft_margin_loss(maps.mean((2, 3)), label) for maps in (whole, merged))
    return tagging + BETA * ((whole - merged).abs() * label[:, :, None, None]).mean()


def _halves(middle: int) -> tuple[slice, slice]:
    return slice(None, middle), slice(middle, None)


def optimizer_of(net: PlainNet, steps: int) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.LambdaLR]:
    """Return SGD for so many steps: biases twice as fast, without decay, and the classifier ten times as fast."""
    named = list(net.backbone.named_parameters())
    weights = [p for name, p in named if not name.endswith("bias")]
    biases = [p for name, p in named if name.endswith("bias")]
    groups = [
        {"params": weights, "lr": LR, "weight_decay": DECAY},
        {"params": biases, "lr": BIAS * LR, "weight_decay": 0.0},
        {"params": net.classifier.parameters(), "lr": NEW * LR, "weight_decay": DECAY},
    ]
    sgd = torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, nesterov=True)
    return sgd, torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: (1 - step / steps) ** POWER)


def train(net: PlainNet, batches: Iterable[Mapping[str, Tensor]], steps: int, half: bool, tick: Callable) -> None:
    """Train on batches of ``image`` and ``label`` that lie on the device, in bfloat16 or float32 (not ``half``).

    ``tick`` is called with the loss after each of the ``steps``.
    """
    sgd, schedule = optimizer_of(net, steps)
    net.train()
    for batch in batches:
        with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=half):
            loss = puzzle_loss(net, batch["image"], batch["label"])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        schedule.step()
        tick(loss)

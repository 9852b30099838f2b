"""DeepLabV3+ and the label maps of photographs that come from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.errors import InputError
from tag2mask.models.backbones import Backbone, build, read_weights
from tag2mask.models.segmentation import SegmentationNet, class_probabilities, label_map

NAMES = ["resnet18", "tf_efficientnet_lite0", "resnest14d", "convnext_atto"]


def net(name: str = "resnet18", stride: int = 16, **settings: object) -> SegmentationNet:
    torch.manual_seed(0)
    return SegmentationNet(4, Backbone(name, output_stride=stride, weights=None, **settings)).eval()  # type: ignore[arg-type]


# network


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_scores_have_the_size_of_an_image_of_any_size(name: str, stride: int) -> None:
    network = net(name, stride)
    with torch.no_grad():
        for size in ((64, 64), (65, 41), (1, 1), (30, 7)):
            assert network(torch.rand(2, 3, *size)).shape == (2, 4, *size)


def test_padding_is_all_that_another_size_changes() -> None:
    network, image = net(), torch.rand(1, 3, 40, 56)
    padded = F.pad(image, (0, 8, 0, 8))
    torch.testing.assert_close(network(image), network(padded)[..., :40, :56])


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_weights_fill_the_whole_encoder(name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    given = build(Backbone(name, weights=None)).eval()
    torch.save(given.state_dict(), tmp_path / "weights.pth")
    network = SegmentationNet(4, Backbone(name, weights=str(tmp_path / "weights.pth"))).eval()
    network.load_pretrained()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = given.forward_intermediates(image, intermediates_only=True)
        found = network.encoder(image)
    torch.testing.assert_close(found[-1], expected[-1])
    torch.testing.assert_close(found[-3], expected[-3])


def test_efficientnets_package_fills_the_encoder() -> None:
    network = SegmentationNet(4, Backbone("tf_efficientnet_lite0", weights="package"))
    network.load_pretrained()
    given = read_weights("tf_efficientnet_lite0", "package")
    assert torch.equal(network.encoder.conv_stem.weight, given["_conv_stem.weight"])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(build(Backbone("resnet34", weights=None)).state_dict(), tmp_path / "other.pth")
    network = SegmentationNet(4, Backbone("resnest14d", weights=str(tmp_path / "other.pth")))
    with pytest.raises(InputError, match="are not those of resnest14d"):
        network.load_pretrained()


@pytest.mark.parametrize(
    ("name", "parts"), [("tf_efficientnet_lite0", ("conv_stem", "blocks.0")), ("convnext_atto", ("stages.0",))]
)
def test_frozen_layers_stay_frozen_after_train_and_the_rest_learns(name: str, parts: tuple[str, ...]) -> None:
    network = net(name, freeze_norm=True, frozen=parts).train()
    before = {key: value.clone() for key, value in network.encoder.state_dict().items()}
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert all(torch.equal(value, before[key]) for key, value in network.encoder.state_dict().items())
    learning = {key for key, weight in network.named_parameters() if weight.requires_grad}
    assert all(weight.grad is not None for key, weight in network.named_parameters() if key in learning)
    stages = {key.removeprefix("model.encoder.model.").replace("_", ".") for key in learning}
    assert not any(key.startswith(tuple(part.replace("_", ".") for part in parts)) for key in stages)
    assert any(key.startswith(("blocks.6", "stages.3")) for key in stages)
    assert network.model.decoder.training


def test_without_dilation_the_encoder_has_none() -> None:
    def dilations(network: SegmentationNet) -> set[int]:
        return {max(m.dilation) for m in network.encoder.modules() if isinstance(m, nn.Conv2d)}

    assert dilations(net()) == {1, 2}
    assert dilations(net(dilate=False)) == {1}


@pytest.mark.parametrize(
    ("name", "stride", "told"),
    [
        ("resnet18", 32, "output stride 8 or 16, not 32"),
        ("resnet5", 16, "timm has no model 'resnet5'"),
        ("vit_tiny_patch16_224", 16, "cannot be the backbone of DeepLabV3"),
    ],
)
def test_a_network_that_cannot_be_an_encoder_is_named(name: str, stride: int, told: str) -> None:
    with pytest.raises(InputError, match=told):
        net(name, stride)


# masks of a photograph


def test_probabilities_of_one_scale_are_the_softmax() -> None:
    network, image = net(), torch.rand(3, 50, 39)
    with torch.no_grad():
        expected = network(image[None]).softmax(1)[0]
        torch.testing.assert_close(class_probabilities(network, image, (1.0,), flip=False), expected)


def test_a_mirrored_image_has_the_mirrored_probabilities() -> None:
    network, image = net(), torch.rand(3, 50, 39)
    with torch.no_grad():
        found = class_probabilities(network, image, (0.5, 1.0), flip=True)
        mirrored = class_probabilities(network, image.flip(-1), (0.5, 1.0), flip=True)
        assert not torch.allclose(found, class_probabilities(network, image, (0.5, 1.0), flip=False))
    torch.testing.assert_close(mirrored.flip(-1), found)
    torch.testing.assert_close(found.sum(0), torch.ones(50, 39))


def test_probabilities_are_the_mean_over_scales() -> None:
    class BySize(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sure = torch.full((len(images), 1, *images.shape[-2:]), float(np.log(3)))
            return torch.cat([torch.zeros_like(sure), sure if images.shape[-1] == 40 else -sure], 1)

    found = class_probabilities(BySize(), torch.rand(3, 20, 20), (1.0, 2.0), flip=True)
    torch.testing.assert_close(found[1], torch.full((20, 20), (0.25 + 0.75) / 2))


@pytest.mark.parametrize("size", [(97, 61), (200, 13), (5, 7), (1, 1)])
def test_a_label_map_is_that_of_scaled_probabilities(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    probabilities = torch.rand(3, 11, 8).softmax(0)
    whole = F.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
    found = label_map(probabilities, size)
    assert found.dtype == torch.uint8
    top = whole.topk(2, 0).values
    clear = top[0] - top[1] > 1e-5
    assert torch.equal(found[clear].long(), whole.argmax(0)[clear])
    assert clear.float().mean() > 0.9


def test_a_label_map_of_the_same_size_is_the_most_probable_class() -> None:
    probabilities = torch.rand(5, 9, 4)
    assert torch.equal(label_map(probabilities, (9, 4)).long(), probabilities.argmax(0))

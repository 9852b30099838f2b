"""From image tags to segmentation masks: CAMs, pseudo-labels and the networks trained on them."""

__version__ = "0.1.0"

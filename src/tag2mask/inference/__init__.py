"""What uses a trained network without training it: CAMs and masks of photographs, export to ONNX."""

"""To and from other libraries of spiking networks, the interchange format NIR, and ONNX; one module each. None of their
packages is imported before it is needed."""

"""What changes a given network: other neurons in it, norms fused with neurons or folded into convolutions."""

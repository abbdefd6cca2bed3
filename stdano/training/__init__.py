"""Training: losses, the loop, checkpoints, reports."""

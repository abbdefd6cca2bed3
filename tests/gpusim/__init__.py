"""A simulated CUDA device: runs GPU code without a GPU and checks every memory access. See README.md."""

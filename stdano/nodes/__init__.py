"""The modules that networks are made of: neurons, norms, and what runs in them."""

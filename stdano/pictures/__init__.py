"""Pictures: each function draws a figure from results; style.py says how it looks, and writes it."""

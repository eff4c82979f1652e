"""Data sets: commands that make, import, split and check them."""

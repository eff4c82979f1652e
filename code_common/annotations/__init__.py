"""Annotations of other tools: finding their files, reading every kind, making labels of them."""

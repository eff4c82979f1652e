"""Runs: their steps, whether it is the same run that goes on, how one is thrown away."""

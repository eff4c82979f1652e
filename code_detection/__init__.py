"""Stage 1: from partial points to the positions of all nuclei (Qu et al. 2020, Sec. III-A)."""

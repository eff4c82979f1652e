"""Stage 2: from points to instance maps (Qu et al. 2020, Sec. III-B)."""

"""Stage 1: from partial points to the positions of all nuclei (Qu et al. 2020, Sec. III-A).

A code like (D12) in a comment is a row of docs/reference/differences.md.
"""

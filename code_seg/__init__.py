"""Stage 2: from points to the shapes of all nuclei (Qu et al. 2020, Sec. III-B).

A code like (D12) in a comment is a row of docs/reference/differences.md.
"""

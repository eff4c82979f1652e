"""Files: reading, writing, the layout of a data set and of a run."""

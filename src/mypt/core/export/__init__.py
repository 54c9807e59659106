"""A model in the files of other programs."""

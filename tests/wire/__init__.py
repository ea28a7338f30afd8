"""A corpus of byte files and what each must lead to."""

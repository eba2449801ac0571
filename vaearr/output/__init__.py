"""A run as one page, and its numbers as plain files."""

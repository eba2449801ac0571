"""Files into a store: a source with its side maps, and values from elsewhere that are attached to
what is there.
"""

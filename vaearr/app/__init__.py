"""The explorer in the browser: a local page over a store and one of its runs."""

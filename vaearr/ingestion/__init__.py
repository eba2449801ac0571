"""Ingest a source with its side maps, and attach values that were computed elsewhere."""

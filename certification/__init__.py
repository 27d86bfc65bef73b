"""Certification as it is run: of a split into a resumable TSV, of single image files, shards and their merging."""

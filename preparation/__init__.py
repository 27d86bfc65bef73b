"""From files on disk to a manifest: scanning, duplicates, splits, download, procedural phantoms."""

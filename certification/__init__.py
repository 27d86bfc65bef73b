"""Run a certification: of a split, into a TSV that can be resumed and merged from shards; or of single image files."""

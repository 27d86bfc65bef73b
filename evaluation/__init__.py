"""What certification and evaluation runs left on disk, turned into metrics, tables and figures."""

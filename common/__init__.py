"""What every script and package may use: the command line (`cli`) and safe files (`files`)."""

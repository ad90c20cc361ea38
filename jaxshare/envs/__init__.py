"""A file or folder per environment, with `Config`, `make` and, if tasks have names, `scenarios`."""

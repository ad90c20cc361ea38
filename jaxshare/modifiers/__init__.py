"""One file per modifier: each exports `Config` and `make(config)`, a function from a family's parts to its parts."""

"""One file per environment: each exports `Config`, `make(config)` and, where it has named tasks, `scenarios()`."""

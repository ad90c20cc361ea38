"""One file per algorithm: each exports `Config` and `make(config, spec)`; files starting with `_` are families."""

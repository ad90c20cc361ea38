"""One file per algorithm: each exports `Config` and `make(config, spec) -> parts`; files starting with `_` are families."""

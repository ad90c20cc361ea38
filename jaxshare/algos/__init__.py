"""One file per algorithm: each exports `Config` and `make(config, spec) -> parts`; `_*.py` are families."""

"""One file per algorithm: each exports `Config` and `make(config, spec) -> parts`; files like `_value.py` are families."""

"""One file per modifier: each exports `Config` and `make(config, parts) -> parts` (see CONTRIBUTING)."""

"""One file or folder per algorithm: each exports `Config` and `make(config, spec) -> Learner`."""

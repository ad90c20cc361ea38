"""One file or folder per modifier, with `Config` and `make(config, learner) -> Learner`."""

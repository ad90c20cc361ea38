"""What a package index installs under this name: AutoML's SMAC3, in so far as our error message depends on it."""

__version__ = "2.4.1"


class Scenario:
    pass

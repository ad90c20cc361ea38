"""WQMIX: weighted QMIX."""

"""COMIX: QMIX for continuous actions."""

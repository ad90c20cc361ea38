"""Grids of runs, what is claimed of them, and verdicts. docs/study.md explains the language."""

"""What runs have logged, read once, and shown: curves, statistics, figures, tables and a page."""

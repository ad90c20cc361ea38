"""The folder of a run: names, locks around everything that is written, settings of other versions."""

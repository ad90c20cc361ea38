"""The commands: each file has the settings of one, its help, and one call of what does the work."""

"""Metrics as a table of tab-separated values."""


class Table:
    """RUN/table.tsv: run, environment steps, metric, value."""

    def __init__(self, run_dir, names, settings):
        self._names = names
        self._file = open(run_dir / "table.tsv", "a")  # noqa: SIM115
        print(settings["algo_name"], *names, file=self._file)

    def write(self, run, record):
        """One line for each metric."""
        for name, value in record.items():
            print(self._names[run], record["env_steps"], name, value, sep="\t", file=self._file)

    def close(self):
        """Close the file."""
        self._file.close()

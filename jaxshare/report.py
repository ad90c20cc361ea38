"""python -m jaxshare.report: see `jaxshare.commands.report`."""

from jaxshare.commands.report import main

if __name__ == "__main__":
    main()

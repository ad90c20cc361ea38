"""python -m jaxshare.train: see `jaxshare.commands.train`."""

from jaxshare.commands.train import main

if __name__ == "__main__":
    main()

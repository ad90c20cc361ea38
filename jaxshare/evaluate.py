"""python -m jaxshare.evaluate: see `jaxshare.commands.evaluate`."""

from jaxshare.commands.evaluate import main

if __name__ == "__main__":
    main()

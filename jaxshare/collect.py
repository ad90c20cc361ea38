"""python -m jaxshare.collect: see `jaxshare.commands.collect`."""

from jaxshare.commands.collect import main

if __name__ == "__main__":
    main()

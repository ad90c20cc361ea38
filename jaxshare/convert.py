"""python -m jaxshare.convert: see `jaxshare.commands.convert`."""

from jaxshare.commands.convert import main

if __name__ == "__main__":
    main()

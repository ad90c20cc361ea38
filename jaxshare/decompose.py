"""python -m jaxshare.decompose: see `jaxshare.commands.decompose`."""

from jaxshare.commands.decompose import main

if __name__ == "__main__":
    main()

"""python -m jaxshare.launch: see `jaxshare.commands.launch`."""

from jaxshare.commands.launch import main

if __name__ == "__main__":
    main()

"""python -m jaxshare.tune: see `jaxshare.commands.tune`."""

from jaxshare.commands.tune import main

main()

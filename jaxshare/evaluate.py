"""python -m jaxshare.evaluate: see `jaxshare.commands.evaluate`."""

from jaxshare._callable import make_callable
from jaxshare.commands.evaluate import main

make_callable(__name__, "jaxshare.api.run")

if __name__ == "__main__":
    main()

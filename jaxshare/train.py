"""python -m jaxshare.train: see `jaxshare.commands.train`."""

from jaxshare._callable import make_callable
from jaxshare.commands.train import main

make_callable(__name__, "jaxshare.api.training")

if __name__ == "__main__":
    main()

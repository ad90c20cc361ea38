"""python -m jaxshare.report: see `jaxshare.commands.report`."""

from jaxshare._callable import make_callable
from jaxshare.commands.report import main

make_callable(__name__, "jaxshare.api.training")

if __name__ == "__main__":
    main()

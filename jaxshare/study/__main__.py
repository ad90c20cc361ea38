"""python -m jaxshare.study."""

from jaxshare.study.command import main

main()

"""What runs in worker processes: numpy and the standard library only, for any Python from 3.8 on.

A worker imports these files as a package `hosted` of its own, whose folder the trainer names, for
its Python has no jaxshare. They import each other relatively.
"""

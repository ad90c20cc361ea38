"""Algorithms, environments, modifiers, presets and loggers that come from outside this package.

entries: what such an entry is, and those that this process has imported. installed: entry points of
installed packages. references: dotted paths and files. presets: folders and files of YAML.
arguments: all of these as the command line names them. options: hydra's choices. origins: what a
run directory says of where its entries came from. again: finding them by that.

`jaxshare.registry` answers by name for all of them.
"""

"""The Python API: what `import jaxshare` offers. See `jaxshare.__init__` for the names."""

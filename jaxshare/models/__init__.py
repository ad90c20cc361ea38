"""Networks, seen from outside as `Network(init, apply)` records.

The only package that imports flax.linen.
"""

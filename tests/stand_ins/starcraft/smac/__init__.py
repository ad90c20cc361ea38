"""A stand-in for oxwhirl's package: see `smac.env`."""

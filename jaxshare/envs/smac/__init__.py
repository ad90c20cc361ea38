"""StarCraft II."""

"""ROMA: roles that emerge."""

"""Small games with known values."""

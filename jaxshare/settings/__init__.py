"""What may be set: a range beside each field, and the one walk that checks settings against them."""

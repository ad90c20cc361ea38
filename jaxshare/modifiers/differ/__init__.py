"""DIFFER: individual rewards out of a team reward."""

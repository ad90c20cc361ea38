"""A package of another name that adds to jaxshare."""

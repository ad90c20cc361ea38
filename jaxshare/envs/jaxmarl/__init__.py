"""Any environment of jaxmarl."""

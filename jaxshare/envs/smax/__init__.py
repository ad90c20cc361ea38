"""SMAX, with units and maps that jaxmarl lacks."""

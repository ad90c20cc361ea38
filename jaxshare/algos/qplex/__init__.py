"""QPLEX: duplex dueling mixing."""

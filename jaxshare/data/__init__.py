"""Data sets for offline learning: in memory (`records`), on disk (`own`, `vault`, `hdf5`).

`formats` opens any of them. Who acts in them: `composition`, `pools`, `paper_sets`.
"""

"""Learners: one record for all algorithms, its one assembly, and what families of them share."""

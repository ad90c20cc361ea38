"""SIT: shared individual trajectories, offline and in three stages."""

"""MASER: subgoals out of the replay."""

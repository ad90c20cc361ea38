"""How jobs of studies are executed: on this machine, by Ray, or by Slurm."""

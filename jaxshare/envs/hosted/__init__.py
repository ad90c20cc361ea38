"""What runs in worker processes: numpy and the standard library only, for any Python from 3.8 on."""

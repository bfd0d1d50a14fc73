"""A recommendation as files that start: by our trainer here, under SLURM or Ray, by torchtitan, or to be read."""

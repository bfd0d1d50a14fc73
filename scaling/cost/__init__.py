"""What a run costs: MFU, money, failures, energy, carbon, thresholds, memory of a rank, and the plan of parallelism."""

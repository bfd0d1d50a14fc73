"""Studies carried from one machine to another."""

"""Experimental design: which runs to train."""

"""Figures for print: Matplotlib, one figure a file; ``gallery.draw_all`` writes them all."""

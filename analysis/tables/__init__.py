"""The tables of report and comparison: text in cells, each with the value that sorting goes by."""

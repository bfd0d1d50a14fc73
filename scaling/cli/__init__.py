"""The command line: the front door that may reach every package and that nothing imports."""

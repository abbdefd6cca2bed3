"""The command line, and the studies of several runs that only it has."""

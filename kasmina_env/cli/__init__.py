"""The command line `kasmina`."""

"""The command line, one file for each command. Nothing else prints or exits."""

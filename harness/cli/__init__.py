"""The command line. Nothing else prints or exits; `commands/` has a file for each command."""

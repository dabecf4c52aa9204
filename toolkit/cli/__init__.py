"""The command line: `main` finds the command, parses its flags and turns bad input into one line.

One file per command. Only this room imports `tasks`.
"""

from toolkit.cli.dispatch import entry_point, main

__all__ = ["entry_point", "main"]

"""The command line, one file per command. Only this room imports `tasks`."""

from toolkit.cli.dispatch import entry_point, main

__all__ = ["entry_point", "main"]

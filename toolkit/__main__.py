from toolkit.cli.dispatch import entry_point

entry_point()

"""One file a command. Only these put tasks and toolkit together; nothing imports them but `toolkit.cli`."""

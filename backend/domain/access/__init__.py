"""Who may use the server, under which names, how much of it, and which addresses it may call. Pure."""

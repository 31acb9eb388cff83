"""Discord's side of capture: slash commands, buttons and modals, over the same requests as everybody else's."""

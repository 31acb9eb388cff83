"""What the bot says: one file of words per language, beside this one."""

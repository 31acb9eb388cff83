"""The spoken notices: one recording per language, beside this file."""

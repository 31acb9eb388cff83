"""Capture: a Discord bot that writes down every packet and every fact of a call. It decodes and guesses nothing."""

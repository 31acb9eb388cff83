"""A Discord on loopback: REST, main gateway, voice gateway v8, UDP and DAVE, spoken to by the unmodified discord.py."""

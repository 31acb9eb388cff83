"""Sessions kept outside the server, in a folder or in S3-compatible storage: backups and the archive, in one form."""

"""The API, for bots and scripts: JSON under /api/v1, bearer tokens with scopes, one problem+json for every refusal."""

"""One module a subject: its endpoints, and what its templates are given. `ROUTES` of each are put
together in `handoff_console.app`."""

"""The paths of the config service, one module for each group; `api` puts them together."""

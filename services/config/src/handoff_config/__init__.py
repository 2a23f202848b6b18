"""The config service: services and their versions, products, contracts, users and tokens.

The core (`services`, `service_commands`, `part_commands`, `backends`, `products`, `contracts`,
`account_commands`, `snapshots`, `rule_tester`, `history`, `streams`, `fields`, `passwords`) is
pure: commands give events, states are folds of them. `store` keeps both, `writes` and `routes`
speak HTTP.
"""

__version__ = "0.1.0"

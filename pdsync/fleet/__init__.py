"""Many accounts, each a project of its own: read from fleet.toml, run side by side on this machine or on a cluster."""

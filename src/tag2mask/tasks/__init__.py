"""LightningModules: they wire networks, losses and optimisers together."""

"""From CAMs to pseudo-labels."""

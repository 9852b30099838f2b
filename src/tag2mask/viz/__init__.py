"""Pictures: overlays, panels and charts, and controls for notebooks."""

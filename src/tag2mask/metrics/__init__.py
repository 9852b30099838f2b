"""Scores of CAMs and label maps: as functions, as metrics of torchmetrics, of whole folders, of single objects."""

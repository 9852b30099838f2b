"""Data sets with image tags: where photographs, tags and masks lie, and how they become batches."""

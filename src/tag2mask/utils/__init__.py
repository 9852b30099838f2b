"""Progress of long work, and work spread over processes."""

"""The audit: what the source, the lake and the warehouse hold, compared by paths that loading does not use."""

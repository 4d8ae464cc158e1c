"""What the two databases have in common: advisory locks, and the settings that every session relies on."""

"""From overhead imagery to a building map."""

"""Data that lies on the ground: vector footprints over georeferenced scenes, and slippy tiles."""

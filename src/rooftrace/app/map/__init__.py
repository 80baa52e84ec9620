"""The map: a page over results folders, with tiles made as they are asked for."""

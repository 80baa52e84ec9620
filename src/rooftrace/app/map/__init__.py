"""The map: a page that shows results folders, with tiles that are made on request."""

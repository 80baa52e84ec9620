"""Catalogues: many scenes by one name."""

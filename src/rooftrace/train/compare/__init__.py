"""Runs held against one another; none of it imports torch, so that it works on any machine."""

"""Planted bugs: would the tests find them? The catalogue, and the edits of the syntax tree that plant one."""

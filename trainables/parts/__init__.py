"""Pieces that two or more procedures need."""

"""Others' methods that the papers compare with, one file each, re-implemented from their descriptions."""

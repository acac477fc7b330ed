"""An emulated AWS on a laptop."""

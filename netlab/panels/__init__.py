"""Live panels of ipywidgets."""

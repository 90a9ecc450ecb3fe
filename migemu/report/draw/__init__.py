"""Figures as plotly reads them: plain mappings of `data` and `layout`, from what was gathered. No files, no HTML."""

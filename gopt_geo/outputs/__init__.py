"""Writing results: staged files, land-cover COGs, polygons and previews."""

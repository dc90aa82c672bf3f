"""The tests of geofield and orchestrate."""

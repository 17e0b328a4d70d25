"""The command line of gopt-geo: one file a command, thin over ``gopt_geo.api``."""

"""Property tests of the core, run for a given time rather than for a given number of examples."""

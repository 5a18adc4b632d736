"""Fuzzing of everything that decodes bytes; see tools/fuzz."""

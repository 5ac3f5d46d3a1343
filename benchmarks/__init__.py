"""Measures the speed that the README and the lessons claim: ``make bench``."""

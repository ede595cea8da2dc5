"""A machine for every user behind one public door: validate, wake, proxy, suspend."""

__version__ = "0.1.0"

"""The version of the package, the one place for it; the build reads it here."""

__version__ = "0.1.0"

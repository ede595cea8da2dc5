"""Signing in and out in a browser: our own sessions, their refreshes, and the pages for both."""

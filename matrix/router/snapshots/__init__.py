"""The router's part in snapshots: when they are due, who takes them, and their record."""

"""Several processes on one public listener: a supervisor, and the workers that it looks after."""

"""The HTTP side: validates, stores, wakes a worker, answers."""

"""The HTTP side: it validates, stores, wakes a worker and answers."""

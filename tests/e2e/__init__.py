"""The console in a browser: every page, on both runtimes, looked at by axe-core and by people."""

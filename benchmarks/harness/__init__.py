"""What the measurements share: both designs as processes, the load, the probe, the machine and the report.

Imports the servers of scripts. The measurements themselves are beside it.
"""

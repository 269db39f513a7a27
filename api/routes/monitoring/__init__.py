"""The routes of monitoring: drift, quality, alerts, business figures and outcomes.

Imports the rooms of the API, and no other route.
"""

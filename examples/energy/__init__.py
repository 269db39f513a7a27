"""Building energy: how many kWh per square metre will this building use in a year? (regression)"""

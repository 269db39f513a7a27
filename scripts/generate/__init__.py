"""Files generated from the code: schema, settings, samples, the table of rooms, migrations.

Each is a make target, and a test compares its files with the code. Imports scripts/servers and the product.
"""

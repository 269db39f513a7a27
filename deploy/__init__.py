"""What runs inside the containers, beside the product: each folder belongs to one way of deploying it.

Imports create_db of scripts. The images copy from here what they need, and nothing else.
"""

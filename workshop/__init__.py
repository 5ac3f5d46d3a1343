"""Helpers shared by the GLAD datacube workshop's notebooks.

What a lesson teaches stands in the notebook; what would distract from it stands here.
"""
